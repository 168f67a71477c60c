package secret

import "net/url"

// URL returns an address as it may be shown: without a password in it.
func URL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	return u.Redacted()
}

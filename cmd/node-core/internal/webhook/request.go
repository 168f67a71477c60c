package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nodeagent/coreapi"
	"nodeagent/internal/secret"
)

const (
	requestTimeout = 15 * time.Second // of one try, with the answer
	maxHeader      = 64 << 10         // bytes of an answer's header
	maxRetryAfter  = time.Hour
	keyPrefix      = "whsec_"
	leastKey       = 24 // bytes, as the specification says
	mostKey        = 64
)

// Headers of the specification, and one of ours.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
	headerKind      = "Node-Core-Event"
)

// ParseKey reads the key of signatures, in the form of the specification.
func ParseKey(text secret.Text) ([]byte, error) {
	encoded, is := strings.CutPrefix(strings.TrimSpace(text.Reveal()), keyPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !is || err != nil || len(key) < leastKey || len(key) > mostKey {
		return nil, fmt.Errorf("the secret is not %s and %d to %d bytes in base64; make one with: echo %s$(openssl rand -base64 32)", keyPrefix, leastKey, mostKey, keyPrefix)
	}
	return key, nil
}

// Allowed says which addresses are good beside https:// ones of hosts that CheckAddress lets pass.
type Allowed struct {
	HTTP       bool // http:// too
	AnyAddress bool // CheckAddress refuses none
}

// CheckURL returns an error for an address that events are not sent to.
func CheckURL(address string, allow Allowed) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("read the address of a webhook %q: want https://HOST[:PORT]/PATH", secret.URL(address))
	case u.Scheme == "http" && !allow.HTTP:
		return errors.New("the address of the webhook has no TLS: events have names of users and nodes; want https://, or start Core with --webhook-http")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !allow.AnyAddress {
		return CheckAddress(ip)
	}
	return nil
}

// newClient makes the client of all webhooks. Unless anyAddress is set, it connects with no address that
// CheckAddress refuses: what a name resolves to is checked when it is dialled.
func newClient(anyAddress bool) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = maxHeader
	// Each event has a connection of its own. On one that is used again, a second answer to the event
	// before, which came late, would be taken for the answer to this one.
	transport.DisableKeepAlives = true
	if !anyAddress {
		transport.DialContext = (&net.Dialer{Timeout: requestTimeout, KeepAlive: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("read the address %q: %w", address, err)
			}
			return CheckAddress(to.Addr())
		}}).DialContext
	}
	return &http.Client{
		Transport: transport, Timeout: requestTimeout,
		// The event is for the address that the operator has named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// metadata are addresses, outside of the link-local networks, at which clouds tell a host its own secrets:
// AWS over IPv6, Alibaba, Oracle's and Azure's agents.
var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("168.63.129.16")}

// nat64 are the addresses that a translator of the network takes for the IPv4 address in their last 32 bits
// (RFC 6052 section 2.1).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// CheckAddress returns an error for an address at which no receiver of an operator is: link-local ones,
// where clouds tell a host its secrets (169.254.169.254), other addresses of that kind, and those that
// are no host's, also behind a translator from IPv6 to IPv4. Loopback and private networks are good: receivers run beside Core.
func CheckAddress(address netip.Addr) error {
	address = address.Unmap().WithZone("")
	if address.IsLinkLocalUnicast() || address.IsMulticast() || address.IsUnspecified() || slices.Contains(metadata, address) {
		return fmt.Errorf("the webhook's host is %s, a link-local or metadata address, to which Core sends nothing; name another host, or start Core with --webhook-any-address", address)
	}
	if nat64.Contains(address) {
		b := address.As16()
		if err := CheckAddress(netip.AddrFrom4([4]byte(b[12:]))); err != nil {
			return fmt.Errorf("%s leads to an IPv4 address: %w", address, err)
		}
	}
	return nil
}

// refused is an answer that is no success.
type refused struct {
	status     int
	retryAfter time.Duration // 0 for nothing said
}

func (r refused) Error() string {
	if r.status/100 == 3 {
		return fmt.Sprintf("the answer is a redirect (%d), which is not followed: name the right address", r.status)
	}
	return fmt.Sprintf("the answer is %d %s", r.status, http.StatusText(r.status))
}

// signature is over the id, the time and the body.
func signature(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	_, _ = mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// post sends an event once.
func post(ctx context.Context, client *http.Client, address string, key []byte, id string, e coreapi.Event, now time.Time) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event %d: %w", e.ID, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("the address can't be read")
	}
	timestamp := strconv.FormatInt(now.Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "node-core")
	r.Header.Set(headerID, id)
	r.Header.Set(headerTimestamp, timestamp)
	r.Header.Set(headerSignature, signature(key, id, timestamp, body))
	r.Header.Set(headerKind, string(e.Kind))
	resp, err := client.Do(r)
	if failure, is := errors.AsType[*url.Error](err); is {
		return withoutAddress(failure)
	} else if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		return nil // the status alone counts
	}
	no := refused{status: resp.StatusCode}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		no.retryAfter = min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	return no
}

// withoutAddress leaves the address out of an error: its path may be a secret.
func withoutAddress(err *url.Error) error {
	if err.Timeout() {
		return fmt.Errorf("no answer within %s", requestTimeout)
	}
	return err.Err
}

package telegram

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxDomain is the longest domain in a secret, in bytes (TDLib, td/mtproto/ProxySecret.h).
const maxDomain = 182

// Proxy is what a link says of an MTProto proxy.
type Proxy struct {
	Address string // HOST:PORT
	Secret  []byte // 16 bytes
	Padded  bool   // packets have random padding: the secure and the TLS mode
	Domain  string // that the TLS mode imitates; empty for the other modes
}

// linkHosts are where links of https:// lead (TDLib, td/telegram/LinkManager.cpp).
var linkHosts = []string{"t.me", "telegram.me", "telegram.dog"}

// ParseLink reads a link to a proxy as TDLib does: tg://proxy?…, tg:proxy?… and https://t.me/proxy?…, whose
// secret is in hex, base64url or base64.
func ParseLink(link string) (p Proxy, err error) {
	u, err := url.Parse(link)
	if err != nil {
		return p, fmt.Errorf("read link: %w", err)
	}
	query := u.Query()
	switch host := strings.TrimPrefix(strings.ToLower(u.Host), "www."); {
	case strings.EqualFold(u.Scheme, "tg") && u.Opaque != "": // tg:proxy
		if !strings.EqualFold(u.Opaque, "proxy") {
			return p, errors.New("read link: it is no link to a proxy")
		}
	case strings.EqualFold(u.Scheme, "tg") && host == "proxy" && strings.Trim(u.Path, "/") == "":
	case (u.Scheme == "https" || u.Scheme == "http") && slices.Contains(linkHosts, host) && strings.EqualFold(u.Path, "/proxy"):
	default:
		return p, errors.New("read link: it is no link to a proxy")
	}
	port, err := strconv.ParseUint(query.Get("port"), 10, 16)
	if server := query.Get("server"); err != nil || port == 0 || server == "" {
		return p, fmt.Errorf("read link: server %q and port %q are no address", server, query.Get("port"))
	}
	p.Address = net.JoinHostPort(query.Get("server"), query.Get("port"))
	return p, p.readSecret(query.Get("secret"))
}

// readSecret reads a secret (TDLib, td/mtproto/ProxySecret.cpp, from_link and from_binary).
func (p *Proxy) readSecret(text string) error {
	raw, err := hex.DecodeString(text)
	for _, encoding := range []*base64.Encoding{base64.RawURLEncoding, base64.RawStdEncoding} {
		if err != nil {
			raw, err = encoding.DecodeString(strings.TrimRight(text, "="))
		}
	}
	switch {
	case err != nil || len(raw) < 16:
		return errors.New("read link: its secret is neither hex nor base64 of 16 bytes or more")
	case len(raw) == 16:
		p.Secret = raw
	case len(raw) == 17 && raw[0] == 0xdd:
		p.Secret, p.Padded = raw[1:], true
	case len(raw) > 17 && len(raw) <= 17+maxDomain && raw[0] == 0xee:
		p.Secret, p.Padded, p.Domain = raw[1:17], true, string(raw[17:])
	default:
		return fmt.Errorf("read link: its secret of %d bytes has no mode that is known", len(raw))
	}
	return nil
}

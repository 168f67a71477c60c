package borrowed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"nodeagent/xray/state"
)

// Site is a site as an inbound borrows it.
type Site struct {
	Network string   // tcp or unix
	Address string   // host and port, or the path of a unix socket
	Names   []string // the serverNames of the inbound that are not empty
	Xver    int      // the version of the PROXY protocol that the site expects; 0 for none
}

// maxNames bounds how many serverNames of an inbound are tried.
const maxNames = 4

// Of returns the site of an inbound; false where it borrows none.
func Of(in state.Inbound) (Site, bool) {
	v := in.View()
	if v.Stream.Security != "reality" {
		return Site{}, false
	}
	network, address := v.Stream.RealitySettings.Site()
	if address == "" {
		return Site{}, false
	}
	names := slices.DeleteFunc(slices.Clone(v.Stream.RealitySettings.ServerNames), func(name string) bool { return name == "" })
	return Site{network, address, names[:min(len(names), maxNames)], v.Stream.RealitySettings.Xver}, true
}

func (s Site) equal(other Site) bool {
	return s.Network == other.Network && s.Address == other.Address && s.Xver == other.Xver && slices.Equal(s.Names, other.Names)
}

// Probe makes a handshake with the site for each name, as REALITY does for a client. The error
// says what is wrong with the site, and what clients see of it.
func Probe(ctx context.Context, site Site) error {
	names := site.Names
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		if err := probeName(ctx, site, name); err != nil {
			return err
		}
	}
	return nil
}

const nobody = "no client can connect"

func probeName(ctx context.Context, site Site, name string) error {
	raw, err := (&net.Dialer{}).DialContext(ctx, site.Network, site.Address)
	if err != nil {
		return fmt.Errorf("the site cannot be reached, so that %s: %w; name another one as target, or mend its network", nobody, err)
	}
	defer raw.Close()
	if deadline, has := ctx.Deadline(); has {
		_ = raw.SetDeadline(deadline)
	}
	if header := proxyHeader(site.Xver); header != nil {
		if _, err := raw.Write(header); err != nil {
			return fmt.Errorf("the site takes no PROXY protocol, so that %s: %w", nobody, err)
		}
	}
	conn := tls.Client(raw, &tls.Config{
		ServerName: name, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"},
		InsecureSkipVerify: true, // only the names and the times of the certificate count: see fits
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		if _, is := errors.AsType[tls.AlertError](err); is || strings.Contains(err.Error(), "protocol version") {
			return fmt.Errorf("the site refuses a TLS 1.3 handshake for %q, so that %s: %w; name a site with TLS 1.3 as target", name, nobody, err)
		}
		return fmt.Errorf("the site makes no TLS 1.3 handshake for %q, so that %s: %w; name another one as target", name, nobody, err)
	}
	return fits(conn.ConnectionState(), name, time.Now())
}

// fits reports what tells the site apart from a usual one.
func fits(connection tls.ConnectionState, name string, now time.Time) error {
	const seen = "clients connect, and whoever looks at the inbound sees that it is no real site"
	leaf := connection.PeerCertificates[0]
	if name != "" {
		if err := leaf.VerifyHostname(name); err != nil {
			return fmt.Errorf("the site's certificate is not for %q: %s; correct serverNames, or name another site as target", name, seen)
		}
	}
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("the site's certificate has expired at %s: %s; name another site as target", leaf.NotAfter.UTC().Format(time.RFC3339), seen)
	}
	if connection.NegotiatedProtocol != "h2" {
		return fmt.Errorf("the site has no HTTP/2: %s, and clients over gRPC and XHTTP may fail; name a site with HTTP/2 as target", seen)
	}
	return nil
}

// proxyHeader is a header of the PROXY protocol that names no client.
func proxyHeader(version int) []byte {
	switch version {
	case 1:
		return []byte("PROXY UNKNOWN\r\n")
	case 2:
		return []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00") // LOCAL
	}
	return nil
}

//go:build !race

// quic-go has races of its own while a connection ends. make unit runs this test by itself.

package xray_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/apernet/quic-go"

	"nodeagent/internal/testfiles"
	"nodeagent/xray/xraytest"
)

// A stranger over QUIC that shows that it is there, and asks for nothing, is not kept.
func TestIdleConnectionsOfQUIC(t *testing.T) {
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	security := fmt.Sprintf(`"security":"tls","tlsSettings":{"alpn":["h3"],"certificates":[{"certificate":[%q],"key":[%q]}]}`, certificate, key)
	for name, inbound := range map[string]string{
		"hysteria": `"protocol":"hysteria","settings":{"version":2,"clients":[{"auth":"right","email":"a"}]},"streamSettings":{"network":"hysteria","hysteriaSettings":{"version":2},` + security + `}`,
		"xhttp":    `"protocol":"vless","settings":{"decryption":"none","clients":[{"email":"a","id":"` + aliceID + `"}]},"streamSettings":{"network":"xhttp","xhttpSettings":{"path":"/p"},` + security + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			testfiles.Write(t, filepath.Join(r.assets, shortIdle), "")
			r.apply(r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,%s}]}`, r.port, inbound)))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			conn, err := quic.DialAddr(ctx, fmt.Sprintf("127.0.0.1:%d", r.port), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}},
				&quic.Config{KeepAlivePeriod: time.Second, MaxIdleTimeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-conn.Context().Done():
			case <-ctx.Done():
				t.Error("the connection is kept")
			}
		})
	}
}

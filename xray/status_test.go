package xray

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/internal/supervise"
	"nodeagent/xray/check"
	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// Warnings follow time and the files: a certificate nears its end without a change of
// the configuration, and is renewed without one.
func TestWarningsAreMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		certificateFile, keyFile := filepath.Join(dir, "certificate"), filepath.Join(dir, "key")
		renew := func(end time.Time) {
			certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), end)
			for file, text := range map[string]string{certificateFile: certificate, keyFile: key} {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		renew(time.Now().Add(check.SoonExpired + time.Hour))
		e, err := New(Config{Worker: supervise.Spec{Path: "none is started"}, CountersPath: "counters"}, Deps{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		e.want(state.State{Inbounds: map[string]state.Inbound{"in-1": {Tag: "in-1", Protocol: "trojan", Config: json.RawMessage(fmt.Sprintf(
			`{"tag":"in-1","port":443,"streamSettings":{"security":"tls","tlsSettings":{"certificates":[{"certificateFile":%q,"keyFile":%q}]}}}`, certificateFile, keyFile))}}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- e.Run(ctx) }()
		warned := func() bool {
			synctest.Wait()
			return strings.Contains(strings.Join(e.Status().Warnings, "\n"), "certificate")
		}
		time.Sleep(2 * warnInterval)
		if warned() {
			t.Errorf("warned too early: %q", e.Status().Warnings)
		}
		time.Sleep(time.Hour)
		if !warned() {
			t.Errorf("nobody is warned of a certificate that ends soon: %q", e.Status().Warnings)
		}
		renew(time.Now().Add(2 * check.SoonExpired))
		time.Sleep(2 * warnInterval)
		if warned() {
			t.Errorf("warned of one that was renewed: %q", e.Status().Warnings)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

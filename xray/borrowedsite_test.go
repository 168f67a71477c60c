package xray_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// A REALITY inbound whose site is not there is applied, and the status says that nobody gets
// in.
func TestAMissingBorrowedSiteIsAWarning(t *testing.T) {
	r := newRig(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	site := gone.Addr().String()
	_ = gone.Close()
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q,"email":"bob"}]},
		"streamSettings":{"network":"raw","security":"reality","realitySettings":{"target":%q,"serverNames":["site.test"],"privateKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","shortIds":["01"]}}}]}`,
		freePort(t), bobID, site)), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	r.apply(s)
	want := fmt.Sprintf(`inbound "in-1": it borrows the site %s: the site cannot be reached, so that no client can connect`, site)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		warnings := strings.Join(r.engine.Status().Warnings, "\n")
		if strings.Contains(warnings, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("warnings: %s", warnings)
		}
	}
}

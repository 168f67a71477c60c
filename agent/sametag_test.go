package agent

import (
	"fmt"
	"strings"
	"testing"
)

// Of two parts with one tag the first is used, as the message says: also where it did not run
// before.
func TestTheFirstOfTwoWithOneTagIsUsed(t *testing.T) {
	body := fmt.Sprintf(`{"revision":1,"clientMap":{},"services":{"xray":{
		"inbounds":[{"tag":"in-1","protocol":"vless","port":1,"settings":{"clients":[{"id":%q}]}},{"tag":"in-1","protocol":"trojan","port":2}],
		"outbounds":[{"tag":"out","protocol":"freedom","sendThrough":"127.0.0.1"},{"tag":"out","protocol":"freedom","sendThrough":"127.0.0.2"}]}}}`, aliceID)
	wanted, unread, err := parseConfig([]byte(body))
	if err != nil || len(unread) != 2 {
		t.Fatal(err, unread)
	}
	d, err := newProposal(wanted, desired{}, unread).desired()
	if err != nil {
		t.Fatal(err)
	}
	if in := d.xray.Inbounds["in-1"]; in.Protocol != "vless" || len(in.Clients) != 1 {
		t.Errorf("the inbound is %+v, want the first one", in)
	}
	if len(d.xray.Outbounds) != 1 || !strings.Contains(string(d.xray.Outbounds[0].Config), "127.0.0.1") {
		t.Errorf("the outbounds are %+v, want the first one", d.xray.Outbounds)
	}
}

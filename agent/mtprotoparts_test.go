package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/telemt"
	"nodeagent/telemt/service"
)

// mtprotoConfig is a configuration with an Xray inbound and these MTProto inbounds; members are
// more members of the MTProto service. The clients in out are not in the client map.
func mtprotoConfig(revision int64, members string, inbounds ...string) []byte {
	return fmt.Appendf(nil, `{"revision":%d,"clientMap":{"alice":{"userId":1},"bob":{"userId":2},"carol":{"userId":3}},
		"services":{"xray":{"inbounds":[{"tag":"vless-7","protocol":"vless","port":443,"settings":{"decryption":"none","clients":[{"id":%q}]}}]},
		"mtproto":{"inbounds":[%s]%s}}}`, revision, aliceID, strings.Join(inbounds, ","), members)
}

func mtprotoInbound(number int, members string, clients ...string) string {
	return fmt.Sprintf(`{"nodeProtocolId":%d,"tag":"mtproto-%d","port":%d,"modes":{"tls":true}%s,"clients":[%s]}`,
		number, number, 8000+number, members, strings.Join(clients, ","))
}

func mtprotoClientOf(id string, secret int) string {
	return fmt.Sprintf(`{"id":%q,"secret":"%032x"}`, id, secret)
}

// servedBy returns the MTProto inbounds of a service, each with its clients.
func servedBy(s service.Service) string {
	var all []string
	for _, in := range s.Inbounds {
		var clients []string
		for _, c := range in.Clients {
			clients = append(clients, c.ID)
		}
		all = append(all, fmt.Sprintf("%s:%s", in.Tag, strings.Join(clients, "+")))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// Each part of MTProto that is wrong in the text costs itself alone, and alice, whom the new
// document removes, is out whatever is wrong.
func TestMTProtoParts(t *testing.T) {
	alice, bob, carol := mtprotoClientOf("alice", 1), mtprotoClientOf("bob", 2), mtprotoClientOf("carol", 3)
	const proxy = `,"upstreams":[{"type":"socks5","address":"127.0.0.1:1080"}]`
	for name, c := range map[string]struct {
		wanted    []byte
		refused   string // kind, tag and client
		served    string
		upstreams string
	}{
		"nothing is wrong":         {mtprotoConfig(2, proxy, mtprotoInbound(1, "", bob), mtprotoInbound(2, "", bob)), "", "mtproto-1:bob mtproto-2:bob", "socks5"},
		"a malformed secret":       {mtprotoConfig(2, proxy, mtprotoInbound(1, "", bob, `{"id":"carol","secret":"12"}`)), "client mtproto-1 carol", "mtproto-1:bob", "socks5"},
		"two clients, one secret":  {mtprotoConfig(2, proxy, mtprotoInbound(1, "", bob, mtprotoClientOf("carol", 2))), "client mtproto-1 carol", "mtproto-1:bob", "socks5"},
		"an inbound's ad tag":      {mtprotoConfig(2, proxy, mtprotoInbound(1, `,"adTag":"1"`, bob, carol), mtprotoInbound(2, "", carol)), "mtproto mtproto-1 ", "mtproto-1:bob mtproto-2:carol", "socks5"},
		"the same of a new one":    {mtprotoConfig(2, proxy, mtprotoInbound(1, "", bob), mtprotoInbound(2, `,"adTag":"1"`, bob)), "mtproto mtproto-2 ", "mtproto-1:bob", "socks5"},
		"its list of clients":      {mtprotoConfig(2, proxy, strings.Replace(mtprotoInbound(1, ""), "[]", "7", 1)), "mtproto mtproto-1 ", "mtproto-1:alice+bob", "socks5"},
		"another secret":           {mtprotoConfig(2, proxy, mtprotoInbound(1, `,"adTag":"1"`, mtprotoClientOf("alice", 9), bob)), "mtproto mtproto-1 ", "mtproto-1:bob", "socks5"},
		"an upstream":              {mtprotoConfig(2, `,"upstreams":[{"type":"tor"}]`, mtprotoInbound(1, "", bob), mtprotoInbound(2, "", bob)), "upstream  ", "mtproto-1:bob", "socks5"},
		"a reserved key":           {mtprotoConfig(2, proxy+`,"advanced":{"server":{"port":1}}`, mtprotoInbound(1, "", bob), mtprotoInbound(2, "", bob)), "mtproto  ", "mtproto-1:bob", "socks5"},
		"an unknown member":        {mtprotoConfig(2, `,"upstrems":[]`, mtprotoInbound(1, "", bob)), "mtproto  ", "mtproto-1:bob", "socks5"},
		"a service that is a text": {[]byte(strings.Replace(string(mtprotoConfig(2, "")), `{"inbounds":[]}`, `"x"`, 1)), "mtproto  ", "mtproto-1:alice+bob", "socks5"},
		"a tag twice":              {mtprotoConfig(2, proxy, mtprotoInbound(1, "", bob, carol), mtprotoInbound(1, "", bob)), "mtproto mtproto-1 ", "mtproto-1:bob+carol", "socks5"},
	} {
		t.Run(name, func(t *testing.T) {
			running, unread, err := parseConfig(mtprotoConfig(1, proxy, mtprotoInbound(1, "", alice, bob)))
			if err != nil || len(unread) > 0 {
				t.Fatal(err, unread)
			}
			wanted, unread, err := parseConfig(c.wanted)
			if err != nil {
				t.Fatalf("the whole document is refused: %v", err)
			}
			var refused []string
			for _, f := range unread {
				refused = append(refused, fmt.Sprintf("%s %s %s", f.Kind, f.Tag, f.Client))
				if f.Retry {
					t.Errorf("%q is tried again, and is wrong in its text", f.Message)
				}
			}
			if got := strings.Join(refused, "; "); got != c.refused {
				t.Errorf("refused are %q, want %q", got, c.refused)
			}
			d, err := newProposal(wanted, running, unread).desired()
			if err != nil {
				t.Fatal(err)
			}
			if got := servedBy(d.mtproto); got != c.served {
				t.Errorf("proposed are %q, want %q", got, c.served)
			}
			if len(d.mtproto.Upstreams) != 1 || d.mtproto.Upstreams[0].Type != c.upstreams {
				t.Errorf("the upstreams are %+v, want %s", d.mtproto.Upstreams, c.upstreams)
			}
			if len(d.xray.Inbounds) != 1 {
				t.Error("Xray's inbound is not proposed")
			}
			if err := running.removeClients(wanted); err != nil { // as at a restart without Core
				t.Fatal(err)
			}
			if got, want := servedBy(running.mtproto), strings.Contains(c.served, "alice"); strings.Contains(got, "alice") != want {
				t.Errorf("after a restart without Core %q are served", got)
			}
		})
	}
}

// Clients who are removed are out before anything else of the document is tried, and the store
// has that too: a telemt can take a minute to fail.
func TestRemovalsComeFirst(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		alice, bob := mtprotoClientOf("alice", 1), mtprotoClientOf("bob", 2)
		n.core.config, n.core.etag, n.core.heartbeat = mtprotoConfig(3, "", mtprotoInbound(1, "", alice, bob)), `"3"`, behind(4)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		var before, stored []string // what was asked for before the new inbound was tried, and what a start would serve
		n.mtproto.mu.Lock()
		from := len(n.mtproto.applied)
		n.mtproto.failFor = func(s service.Service) error {
			if len(s.Inbounds) < 2 {
				return nil
			}
			if before == nil {
				for _, applied := range n.mtproto.applied[from:] {
					before = append(before, servedBy(applied))
				}
				history, err := db.History()
				if err != nil {
					t.Error(err)
				}
				body, err := history.Current.Body.Unpack()
				if err != nil {
					t.Error(err)
				}
				d, err := parseKept(history, body)
				if err != nil {
					t.Error(err)
				}
				stored = append(stored, servedBy(d.mtproto))
			}
			return &service.ApplyError{Code: service.FailureApply, Tag: "mtproto-2", Message: "it does not come up"}
		}
		n.mtproto.mu.Unlock()
		n.core.mu.Lock()
		n.core.config, n.core.etag = mtprotoConfig(4, "", mtprotoInbound(1, "", bob), mtprotoInbound(2, "", bob)), `"4"`
		n.core.mu.Unlock()
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if !slices.Equal(before, []string{"mtproto-1:bob"}) || !slices.Equal(stored, before) {
			t.Errorf("before the new inbound was tried, %q was asked for and %q stored, want both without alice", before, stored)
		}
		if last := servedBy(n.mtproto.applied[len(n.mtproto.applied)-1]); last != "mtproto-1:bob" {
			t.Errorf("served are %q", last)
		}
		reports := n.core.posted(wire.PathError)
		if len(reports) != 1 || !strings.Contains(reports[0].body, `"parts":[{"kind":"mtproto","tag":"mtproto-2","reason":"it does not come up","retry":true}]`) {
			t.Errorf("reports %+v", reports)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Where telemt refuses a new option in its own words, the inbounds keep the options that they
// run with, the removed client is out, and the same text is not tried again.
func TestTelemtRefusesAnOption(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		alice, bob := mtprotoClientOf("alice", 1), mtprotoClientOf("bob", 2)
		n.core.config, n.core.etag, n.core.heartbeat = mtprotoConfig(3, `,"advanced":{"timeouts":{"a":1}}`, mtprotoInbound(1, "", alice, bob)), `"3"`, behind(5)
		tries := 0
		n.mtproto.failFor = func(s service.Service) error {
			var all []error
			for tag, d := range s.ByTag() {
				if d.Advanced["typo"] != nil {
					tries++
					all = append(all, &service.ApplyError{Code: service.FailureApply, Tag: tag, Message: "telemt rejects the configuration: typo", Final: true})
				}
			}
			return errors.Join(all...)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(5 * time.Second)
		n.core.mu.Lock()
		n.core.config, n.core.etag = mtprotoConfig(4, `,"advanced":{"typo":1}`, mtprotoInbound(1, "", bob), mtprotoInbound(2, "", bob)), `"4"`
		n.core.mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		last := n.mtproto.applied[len(n.mtproto.applied)-1]
		if got := servedBy(last); got != "mtproto-1:bob" || last.ByTag()["mtproto-1"].Advanced["timeouts"] == nil {
			t.Errorf("served are %q with %v", got, last.ByTag()["mtproto-1"].Advanced)
		}
		if tries != 2 {
			t.Errorf("telemt was asked %d times, want once for each inbound", tries)
		}
		reports := n.core.posted(wire.PathError)
		if len(reports) != 1 || strings.Count(reports[0].body, `"retry":false`) != 2 || !strings.Contains(reports[0].body, "runs without 2 of its parts") {
			t.Errorf("reports %+v", reports)
		}
		n.core.mu.Lock() // another revision that mends it
		n.core.config, n.core.etag = mtprotoConfig(5, `,"advanced":{"timeouts":{"a":2}}`, mtprotoInbound(1, "", bob), mtprotoInbound(2, "", bob)), `"5"`
		n.core.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		last = n.mtproto.applied[len(n.mtproto.applied)-1]
		if got := servedBy(last); got != "mtproto-1:bob mtproto-2:bob" || fmt.Sprint(last.ByTag()["mtproto-1"].Advanced) != "map[timeouts:map[a:2]]" {
			t.Errorf("served are %q with %v", got, last.ByTag()["mtproto-1"].Advanced)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// An inbound without a telemt is a refused part that is tried again: the revision runs as a
// whole only once it serves.
func TestMissingTelemtIsARefusedPart(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.mtproto.status = telemt.Status{Inbounds: []telemt.InboundStatus{{Tag: "mtproto-1", State: telemt.StateFailed, Missing: true, Error: "telemt is not installed"}}}
		n.core.config, n.core.etag = mtprotoConfig(3, "", mtprotoInbound(1, "", mtprotoClientOf("alice", 1))), `"3"`
		n.core.heartbeat = behind(3)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(5 * time.Second)
		n.inbox.MTProtoFailed(service.Failure{Code: service.FailureMissing, Tag: "mtproto-1", Message: "telemt is not installed"})
		time.Sleep(time.Second)
		synctest.Wait()
		reports := n.core.posted(wire.PathError)
		if len(reports) != 1 || !strings.Contains(reports[0].body, `"code":"telemt_missing"`) ||
			!strings.Contains(reports[0].body, `"parts":[{"kind":"mtproto","tag":"mtproto-1","reason":"telemt is not installed","retry":true}]`) {
			t.Errorf("reports %+v, want one with the part", reports)
		}
		if applied := n.core.posted(wire.PathApplied); len(applied) > 0 {
			t.Errorf("the revision is told as applied: %+v", applied)
		}
		n.mtproto.mu.Lock()
		n.mtproto.status = telemt.Status{}
		n.mtproto.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if applied := n.core.posted(wire.PathApplied); len(applied) != 1 {
			t.Errorf("with a telemt the revision is not told as applied: %+v", applied)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Every inbound that telemt refuses is a part, and its own words are final.
func TestMTProtoFaults(t *testing.T) {
	err := mtprotoFault(fmt.Errorf("apply: %w", errors.Join(
		&service.ApplyError{Code: service.FailureApply, Tag: "a", Message: "telemt rejects the configuration", Final: true},
		&service.ApplyError{Code: service.FailurePortInUse, Tag: "b", Port: 1, Message: "held"},
		&service.BackError{Err: &service.ApplyError{Code: service.FailureApply, Tag: "c", Message: "the way back"}},
	)))
	running := desired{}
	wanted, _, parseErr := parseConfig(mtprotoConfig(1, "", mtprotoInbound(1, "")))
	if parseErr != nil {
		t.Fatal(parseErr)
	}
	for _, tag := range []string{"a", "b", "c"} {
		wanted.mtproto.Inbounds = append(wanted.mtproto.Inbounds, service.Inbound{Tag: tag})
	}
	p := newProposal(wanted, running, nil)
	if !p.refuse(err) {
		t.Fatal("no part is refused")
	}
	var got []string
	for _, f := range p.refused {
		got = append(got, fmt.Sprintf("%s %s %s %v", f.Kind, f.Tag, f.Code, f.Retry))
	}
	if want := []string{"mtproto a telemt_apply_failed false", "mtproto b port_in_use true"}; !slices.Equal(got, want) {
		t.Errorf("refused are %q, want %q", got, want)
	}
}

package xray_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/proxy"

	"nodeagent/xray/state"
)

// native applies Core's JSON as it is, the inbound's tag being in-1.
func (r *rig) native(text string) { r.nativeOf(text, func(string) bool { return true }) }

// nativeOf applies it with a client map.
func (r *rig) nativeOf(text string, inClientMap func(string) bool) {
	r.t.Helper()
	s := r.parsedOf(text, inClientMap)
	for i := range s.Inbounds["in-1"].Clients {
		s.Inbounds["in-1"].Clients[i].Slot = uint32(i + 1)
	}
	r.apply(s)
}

func (r *rig) parsed(text string) state.State {
	return r.parsedOf(text, func(string) bool { return true })
}

func (r *rig) parsedOf(text string, inClientMap func(string) bool) state.State {
	r.t.Helper()
	s, err := parseReaching(json.RawMessage(text), inClientMap)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// socks opens a connection to the echo with an account whose password is its name.
func (r *rig) socks(account string) error {
	_, err := r.dialSOCKS(account)
	return err
}

func (r *rig) dialSOCKS(account string) (net.Conn, error) {
	dialer, err := proxy.SOCKS5("tcp", fmt.Sprintf("127.0.0.1:%d", r.port), &proxy.Auth{User: account, Password: account}, proxy.Direct)
	if err != nil {
		return nil, err
	}
	conn, err := dialer.Dial("tcp", r.echo.Addr().String())
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn, use(conn)
}

// Routing rules hold for accounts too, by the name that Core gave and by the account's.
func TestRoutingByAccount(t *testing.T) {
	r := newRig(t)
	for name, user := range map[string]string{"Core's": "bob@core", "the account's": "bob", "an expression": "regexp:^b.b@"} {
		t.Run(name, func(t *testing.T) {
			r.native(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"socks","settings":{"auth":"password",
				"accounts":[{"user":"alice","pass":"alice","email":"alice@core"},{"user":"bob","pass":"bob","email":"bob@core"}]}}],
				"outbounds":[{"tag":"direct","protocol":"freedom"},{"tag":"block","protocol":"blackhole"}],
				"routing":{"rules":[{"user":[%q],"outboundTag":"block"}]}}`, r.port, user))
			if err := r.socks("alice"); err != nil {
				t.Errorf("alice: %v", err)
			}
			if err := r.socks("bob"); err == nil {
				t.Error("bob passed a rule that blocks him")
			}
		})
	}
}

// Accounts that are no client's are served.
func TestUnattributedAccounts(t *testing.T) {
	r := newRig(t)
	r.native(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"socks","settings":{"auth":"password",
		"accounts":[{"user":"one","pass":"one","email":"shared"},{"user":"two","pass":"two","email":"shared"}]}}]}`, r.port))
	for _, account := range []string{"one", "two"} {
		if err := r.socks(account); err != nil {
			t.Errorf("account %s: %v", account, err)
		}
	}
	r.native(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"shadowsocks",
		"settings":{"method":"aes-128-gcm","password":"of everybody","email":"everybody"}}]}`, r.port))
	conn, err := r.dialOutbound(fmt.Sprintf(`{"protocol":"shadowsocks","settings":{"servers":[{"address":"127.0.0.1","port":%d,"method":"aes-128-gcm","password":"of everybody"}]}}`, r.port))
	if err != nil {
		t.Errorf("a single password: %v", err)
	} else if err := use(conn); err != nil {
		t.Error(err)
	}
}

// A removed account that belongs to no client is cut, and nobody else is.
func TestUnattributedAccountsAreCut(t *testing.T) {
	r := newRig(t)
	serve := func(names ...string) {
		accounts := make([]string, len(names))
		for i, name := range names {
			accounts[i] = fmt.Sprintf(`{"user":%q,"pass":%[1]q,"email":"shared"}`, name)
		}
		r.nativeOf(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"socks","settings":{"auth":"password","accounts":[%s]}}]}`,
			r.port, strings.Join(accounts, ",")), func(key string) bool { return key == "shared" })
	}
	serve("one", "two", "three")
	conns := map[string]net.Conn{}
	for _, name := range []string{"one", "two", "three"} {
		conn, err := r.dialSOCKS(name)
		if err != nil {
			t.Fatal(err)
		}
		conns[name] = conn
	}
	serve("one", "three")
	r.cut(conns["two"])
	for _, name := range []string{"one", "three"} {
		if err := use(conns[name]); err != nil {
			t.Errorf("account %s: %v", name, err)
		}
	}
}

// Ports go from one inbound to another in one change, also in a circle, and to one that
// comes.
func TestPortsAreHandedOn(t *testing.T) {
	r := newRig(t)
	ports := []int{r.port, freePort(t), freePort(t)}
	state := func(where map[string]int) state.State {
		s := state.State{Inbounds: map[string]state.Inbound{}}
		for tag, port := range where {
			one, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":%q,"listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q}]}}]}`,
				tag, ports[port], map[string]string{"a-1": aliceID, "b-2": bobID, "c-3": carolID}[tag])), func(string) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			in := one.Inbounds[tag]
			in.Clients[0].Slot = uint32(tag[0] - 'a' + 1)
			s.Inbounds[tag], s.Outbounds = in, one.Outbounds
		}
		return s
	}
	serves := func(id string, port int) {
		t.Helper()
		if _, err := r.tryDialPort(id, ports[port]); err != nil {
			t.Errorf("client %s at port %d of three: %v", id[:4], port+1, err)
		}
	}
	r.apply(state(map[string]int{"a-1": 0, "b-2": 1}))
	pid := r.engine.Status().PID
	for name, next := range map[string]map[string]int{
		"on, before the other in order": {"a-1": 1, "b-2": 2},
		"on, after it":                  {"b-2": 0, "a-1": 2},
		"in a circle":                   {"a-1": 1, "b-2": 0},
		"to one that comes":             {"a-1": 2, "b-2": 1, "c-3": 0},
	} {
		r.apply(state(map[string]int{"a-1": 0, "b-2": 1}))
		r.apply(state(next))
		t.Log(name)
		for tag, port := range next {
			serves(map[string]string{"a-1": aliceID, "b-2": bobID, "c-3": carolID}[tag], port)
		}
	}
	if r.engine.Status().PID != pid {
		t.Error("the worker was replaced for ports")
	}
	// A port that another process holds is refused as before.
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	ports[2] = busy.Addr().(*net.TCPAddr).Port
	if err := r.engine.Apply(t.Context(), state(map[string]int{"a-1": 2})); err == nil {
		t.Error("a port of another process was taken")
	}
}

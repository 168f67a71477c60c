package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/store"
	"nodeagent/xray"
	"nodeagent/xray/state"
)

// body is a NodeConfig with a VLESS, a SOCKS and an MTProto inbound.
func body(t *testing.T, revision int64, keys []string, vless, socks, mtproto []any) []byte {
	t.Helper()
	clientMap := map[string]any{}
	for i, key := range keys {
		clientMap[key] = map[string]any{"userId": i + 1}
	}
	xrayInbounds := []any{map[string]any{"tag": "vless-7", "protocol": "vless", "port": 443, "settings": map[string]any{"decryption": "none", "clients": vless}}}
	if socks != nil {
		xrayInbounds = append(xrayInbounds, map[string]any{"tag": "socks-8", "protocol": "socks", "port": 1080, "settings": map[string]any{"auth": "password", "accounts": socks}})
	}
	raw, err := json.Marshal(map[string]any{
		"revision": revision, "clientMap": clientMap, "services": map[string]any{
			"xray":    map[string]any{"inbounds": xrayInbounds},
			"mtproto": map[string]any{"inbounds": []any{map[string]any{"nodeProtocolId": 9, "tag": "mtproto-9", "port": 8443, "modes": map[string]any{"secure": true}, "clients": mtproto}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func vlessClient(email string, number string) map[string]any {
	return map[string]any{"email": email, "id": number + "1111111-1111-4111-8111-111111111111"}
}

func account(name, pass string) map[string]any {
	return map[string]any{"email": name, "user": name, "pass": pass}
}

func mtprotoClient(id, digit string) map[string]any {
	secret := ""
	for range 32 {
		secret += digit
	}
	return map[string]any{"id": id, "secret": secret}
}

// A client that was removed since, was taken off one inbound, or has another credential, does
// not come back with the configuration before; MTProto stays at the newer one.
func TestWhoLeftSinceStaysOut(t *testing.T) {
	all := []string{"stays", "left", "moved", "turned"}
	good := body(t, 3, all,
		[]any{vlessClient("stays", "1"), vlessClient("left", "2"), vlessClient("moved", "3"), vlessClient("turned", "4"), vlessClient("untied", "5")},
		[]any{account("stays", "a"), account("left", "b"), account("moved", "c"), account("turned", "d")},
		[]any{mtprotoClient("stays", "a"), mtprotoClient("turned", "b")})
	for name, c := range map[string]struct {
		newer        []byte
		vless, socks []string
	}{
		"both inbounds are there": {
			body(t, 4, []string{"stays", "moved", "turned"},
				[]any{vlessClient("stays", "1"), vlessClient("turned", "6")},
				[]any{account("stays", "a"), account("moved", "c"), account("turned", "e")},
				[]any{mtprotoClient("stays", "a"), mtprotoClient("turned", "c")}),
			[]string{"stays"},
			[]string{"moved", "stays"},
		},
		"one is gone": {
			body(t, 4, []string{"stays", "moved", "turned"},
				[]any{vlessClient("stays", "1"), vlessClient("untied", "5")}, nil,
				[]any{mtprotoClient("stays", "a")}),
			[]string{"stays", "untied"},
			[]string{"moved", "stays", "turned"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			current, givenUp := pack(t, 3, good), pack(t, 4, c.newer)
			d, err := parseKept(store.History{Current: &current, GivenUp: givenUp.Body}, good)
			if err != nil {
				t.Fatal(err)
			}
			for tag, want := range map[string][]string{"vless-7": c.vless, "socks-8": c.socks} {
				var got []string
				for _, client := range d.xray.Inbounds[tag].Clients {
					got = append(got, client.Key)
				}
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("%s has %v, want %v", tag, got, want)
				}
			}
			var socks struct {
				Settings struct {
					Accounts []struct{ User string }
				}
			}
			if err := json.Unmarshal(d.xray.Inbounds["socks-8"].Config, &socks); err != nil || len(socks.Settings.Accounts) != len(c.socks) {
				t.Errorf("the inbound itself has %+v, want %v (%v)", socks.Settings.Accounts, c.socks, err)
			}
			newer, _, err := parseConfig(c.newer)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.mtproto.Inbounds[0].Clients) != len(newer.mtproto.Inbounds[0].Clients) || d.mtproto.Inbounds[0].Clients[0].Secret != newer.mtproto.Inbounds[0].Clients[0].Secret {
				t.Errorf("mtproto is %+v", d.mtproto)
			}
			for owner := range d.counted() {
				if owner.Engine != store.EngineTelemt {
					continue
				}
				if want := newer.clientMap.base[owner.Key].UserID; owner.Attribution == nil || owner.Attribution.UserID != want {
					t.Errorf("mtproto's %s is attributed to %+v, want user %d", owner.Key, owner.Attribution, want)
				}
			}
		})
	}
}

// Where the newer configuration gave a port of Xray's to MTProto, that goes back too.
func TestGoingBackTakesThePort(t *testing.T) {
	db := openStore(t)
	good := body(t, 3, []string{"stays", "left"}, []any{vlessClient("stays", "1")}, nil, []any{mtprotoClient("stays", "a"), mtprotoClient("left", "b")})
	bad := []byte(strings.NewReplacer(`"revision":3`, `"revision":4`, `"port":443`, `"port":1443`, `"port":8443`, `"port":443`).Replace(
		string(body(t, 3, []string{"stays"}, []any{vlessClient("stays", "1")}, nil, []any{mtprotoClient("stays", "a")}))))
	n := newNode(t, db)
	for _, body := range [][]byte{good, bad} {
		if err := n.apply(t.Context(), body, ""); err != nil {
			t.Fatal(err)
		}
	}
	back := store.History{}.Applied(pack(t, 3, good), true).Applied(pack(t, 4, bad), true).RolledBack()
	if err := n.goBackLocked(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	last := n.mtproto.applied[len(n.mtproto.applied)-1]
	if last.Inbounds[0].Port != 8443 || len(last.Inbounds[0].Clients) != 1 || len(n.engine.restored) != 1 {
		t.Errorf("mtproto runs %+v", last)
	}
}

// The store keeps what a configuration was gone back from.
func TestWhoLeftStaysOutAfterARestart(t *testing.T) {
	db := openStore(t)
	good := body(t, 3, []string{"stays", "left"}, []any{vlessClient("stays", "1"), vlessClient("left", "2")}, nil, nil)
	newer := body(t, 4, []string{"stays"}, []any{vlessClient("stays", "1")}, nil, nil)
	history := store.History{}.Applied(pack(t, 3, good), true).Applied(pack(t, 4, newer), true).RolledBack()
	if err := db.Commit(time.Now(), nil, history, nil); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, db)
	n.restore(t.Context())
	if len(n.engine.restored) != 1 || n.engine.restored[0].Clients() != 1 {
		t.Errorf("restored %+v", n.engine.restored)
	}
}

// A configuration over which the worker ends while it is applied never ran: it is given
// up after three tries, and the one that runs has no part in it.
func TestCrashOverAChangeBlamesTheChange(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(5)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(2 * time.Minute)
		publish := func(revision int64, port int) {
			n.core.mu.Lock()
			defer n.core.mu.Unlock()
			n.core.config, n.core.etag = nodeConfig(t, revision, port), strconv.Quote(strconv.FormatInt(revision, 10))
		}
		runs := func(revision int64) {
			t.Helper()
			synctest.Wait()
			if is := kept(t, db); is != revision {
				t.Fatalf("revision %d is kept, want %d", is, revision)
			}
		}
		publish(4, 444)
		time.Sleep(time.Hour)
		runs(4)
		tries := 0
		n.engine.fail = func(s state.State) error { // as the engine does where the worker dies over an operation
			if !strings.Contains(string(s.Inbounds["vless-7"].Config), "445") {
				return nil
			}
			tries++
			n.inbox.XrayFailed(xray.Failure{Crash: true, Suspect: true, Changing: true, Fault: fault.OnHost("", "panic: words")})
			return fmt.Errorf("replace_inbound: %w", xray.ErrFatalChange)
		}
		publish(5, 445)
		time.Sleep(2 * time.Hour)
		runs(4)
		if tries != crashesInARow {
			t.Errorf("it was tried %d times, want %d", tries, crashesInARow)
		}
		publish(6, 446)
		time.Sleep(time.Minute)
		runs(6)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
	"nodeagent/store"
)

// world has the Cores at their addresses, and the state of a node.
type world struct {
	id    store.Identity
	full  bool // the disk is full
	cores map[string]*core
	dials int

	heartbeats int
}

func (w *world) Identity() (store.Identity, error) { return w.id, nil }

func (w *world) ChangeIdentity(change func(*store.Identity)) error {
	if w.full {
		return errors.New("no space left on device")
	}
	change(&w.id)
	return nil
}

// core is a Core that accepts some keys, or is away.
type core struct {
	away     bool
	keys     map[secret.Text]bool
	said     wire.CoreIdentity
	offers   secret.Text
	busy     bool          // it asks to wait
	noPosts  bool          // a rule of a firewall: posts are refused, and the configuration is given
	received []secret.Text // the keys of accepted requests
}

// client is a client of the Core at an address.
type client struct {
	w   *world
	url string
	key secret.Text
}

func (c *client) ask() error {
	core := c.w.cores[c.url]
	switch {
	case core == nil || core.away:
		return errors.New("reach Core: connection refused")
	case core.busy:
		return &coreclient.Error{Route: "POST " + wire.PathHeartbeat, Status: http.StatusServiceUnavailable}
	case !core.keys[c.key]:
		return &coreclient.Error{Route: "POST " + wire.PathHeartbeat, Status: http.StatusUnauthorized}
	}
	core.received = append(core.received, c.key)
	if c.key == core.offers { // the first use of an offered key ends the offer and the key before
		core.keys, core.offers = map[secret.Text]bool{c.key: true}, ""
	}
	return nil
}

func (c *client) Heartbeat(context.Context, wire.HeartbeatRequest, string, string, time.Duration) (wire.HeartbeatResponse, error) {
	c.w.heartbeats++
	if core := c.w.cores[c.url]; core != nil && core.noPosts {
		return wire.HeartbeatResponse{}, &coreclient.Error{Route: "POST " + wire.PathHeartbeat, Status: http.StatusForbidden}
	}
	return wire.HeartbeatResponse{OK: true}, c.ask()
}

func (c *client) Config(context.Context, string) ([]byte, string, bool, error) {
	return []byte("{}"), "", true, c.ask()
}
func (c *client) Post(context.Context, string, string, []byte) error { return c.ask() }
func (c *client) Skew() time.Duration                                { return 0 }

func (c *client) Said() (wire.CoreIdentity, secret.Text) {
	if core := c.w.cores[c.url]; core != nil && !core.away {
		return core.said, core.offers
	}
	return wire.CoreIdentity{}, ""
}

func (w *world) open(t interface{ Fatal(args ...any) }, machine string) *Node {
	n, err := Open(w, func(id store.Identity, _ func() string) (Core, error) {
		w.dials++
		return &client{w, id.CoreURL, id.AuthKey}, nil
	}, machine, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newWorld() *world {
	return &world{
		id: store.Identity{NodeID: "1", CoreURL: "https://old.example", AuthKey: "first", Core: wire.CoreIdentity{ID: "a", Epoch: 1}},
		cores: map[string]*core{
			"https://old.example": {keys: map[secret.Text]bool{"first": true}, said: wire.CoreIdentity{ID: "a", Epoch: 1}},
		},
	}
}

func beat(n *Node) error {
	_, err := n.Heartbeat(context.Background(), wire.HeartbeatRequest{}, "", "", 0)
	return err
}

// Core, daemon and disk fail at any step while keys are rotated. The node is never without a
// key that Core accepts.
func TestARotationAlwaysLeavesAWorkingKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		c := w.cores["https://old.example"]
		n := w.open(t, "")
		offered := 0
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"beat", "offer", "restart", "away", "full", "post"}).Draw(t, "step") {
			case "beat":
				_ = beat(n)
			case "offer":
				offered++
				if c.offers != "" { // a later offer takes the place of an earlier one
					delete(c.keys, c.offers)
				}
				c.offers = secret.Text(fmt.Sprintf("offer %d", offered))
				c.keys[c.offers] = true
			case "restart":
				n = w.open(t, "")
			case "away":
				c.away = !c.away
			case "full":
				w.full = !w.full
			case "post":
				_ = n.Post(context.Background(), wire.PathUsage, "", nil)
			}
		}
		c.away, w.full = false, false
		for range 3 {
			if err := beat(n); err != nil {
				t.Fatalf("Core accepts %v and offers %q; the node has %q and %q: %v", c.keys, c.offers, w.id.AuthKey.Reveal(), w.id.NextKey.Reveal(), err)
			}
		}
		if c.offers != "" {
			t.Fatalf("the node does not use the offered key %q", c.offers.Reveal())
		}
		if again := w.open(t, ""); beat(again) != nil {
			t.Fatal("the stored key is not accepted")
		}
	})
}

// A node follows its Core to an announced address, and nobody else.
func TestAnnouncedAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		next  string
		there *core
		moves bool
	}{
		"the same Core":              {"https://new.example", &core{said: wire.CoreIdentity{ID: "a", Epoch: 1}}, true},
		"another Core with this key": {"https://new.example", &core{said: wire.CoreIdentity{ID: "b", Epoch: 1}}, false},
		"one that does not say":      {"https://new.example", &core{}, false},
		"nobody":                     {"https://new.example", nil, false},
		"plain HTTP":                 {"http://new.example", &core{said: wire.CoreIdentity{ID: "a", Epoch: 1}}, false},
		"no address":                 {"new.example", &core{said: wire.CoreIdentity{ID: "a", Epoch: 1}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			old := w.cores["https://old.example"]
			old.said.NextURL = c.next
			if c.there != nil {
				c.there.keys = map[secret.Text]bool{"first": true}
				w.cores[c.next] = c.there
			}
			n := w.open(t, "")
			if err := beat(n); err != nil {
				t.Fatal(err)
			}
			old.away = true
			err := beat(n)
			if moved := w.id.CoreURL != "https://old.example"; moved != c.moves || (err == nil) != c.moves {
				t.Fatalf("the node asks %s: %v", w.id.CoreURL, err)
			}
			if c.moves && n.Identity().CoreURL != c.next {
				t.Errorf("it says that it asks %s", n.Identity().CoreURL)
			}
		})
	}
}

// A Core that does not say who it is works as before.
func TestACoreWithoutAnIdentity(t *testing.T) {
	w := newWorld()
	w.id.Core = wire.CoreIdentity{}
	w.cores["https://old.example"].said = wire.CoreIdentity{}
	n := w.open(t, "")
	if err := beat(n); err != nil || w.id.Core != (wire.CoreIdentity{}) || w.dials != 1 {
		t.Fatalf("%v, %+v, %d clients", err, w.id.Core, w.dials)
	}
	w.cores["https://new.example"] = &core{keys: map[secret.Text]bool{"first": true}}
	if err := n.SetCore(t.Context(), Move{URL: "https://new.example"}); err != nil || w.id.CoreURL != "https://new.example" {
		t.Fatalf("%v, at %s", err, w.id.CoreURL)
	}
}

func TestSetCore(t *testing.T) {
	for name, c := range map[string]struct {
		there *core
		move  Move
		want  error // nil for a success
	}{
		"the same Core":                      {&core{keys: map[secret.Text]bool{"first": true}, said: wire.CoreIdentity{ID: "a"}}, Move{}, nil},
		"another Core":                       {&core{keys: map[secret.Text]bool{"first": true}, said: wire.CoreIdentity{ID: "b"}}, Move{}, ErrOtherCore},
		"another Core, which is meant":       {&core{keys: map[secret.Text]bool{"first": true}, said: wire.CoreIdentity{ID: "b"}}, Move{Other: true}, nil},
		"another Core without this key":      {&core{said: wire.CoreIdentity{ID: "b"}}, Move{Other: true}, errors.ErrUnsupported},
		"the same Core, restored without it": {&core{said: wire.CoreIdentity{ID: "a"}}, Move{}, errors.ErrUnsupported},
		"nobody":                             {nil, Move{}, errors.ErrUnsupported},
		"one that does not say who it is":    {&core{keys: map[secret.Text]bool{"first": true}}, Move{}, ErrOtherCore},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			if c.there != nil {
				w.cores["https://new.example"] = c.there
			}
			n := w.open(t, "")
			c.move.URL = "https://new.example"
			err := n.SetCore(t.Context(), c.move)
			if (err == nil) != (c.want == nil) || errors.Is(c.want, ErrOtherCore) != errors.Is(err, ErrOtherCore) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if moved := w.id.CoreURL == c.move.URL; moved != (err == nil) {
				t.Errorf("the node asks %s", w.id.CoreURL)
			}
		})
	}
}

// On another machine the node fetches its configuration and sends nothing, until it is
// adopted. A state without a machine gets the first one.
func TestOtherMachine(t *testing.T) {
	w := newWorld()
	if err := beat(w.open(t, "machine 1")); err != nil || w.id.Machine != "machine 1" {
		t.Fatalf("%v, machine %q", err, w.id.Machine)
	}
	n := w.open(t, "machine 2")
	for _, err := range []error{beat(n), n.Post(t.Context(), wire.PathUsage, "", nil)} {
		if !errors.Is(err, ErrOtherMachine) {
			t.Fatalf("on another machine: %v", err)
		}
	}
	if _, _, _, err := n.Config(t.Context(), ""); err != nil {
		t.Fatalf("the configuration: %v", err)
	}
	if err := n.Adopt(); err != nil {
		t.Fatal(err)
	}
	<-n.Changed()
	if err := beat(n); err != nil {
		t.Fatal(err)
	}
	if err := beat(w.open(t, "")); err != nil {
		t.Fatalf("on a system without a machine-id: %v", err)
	}
}

// A firewall that lets no posts through takes no key for another: one call makes a few
// requests, and the keys stay as they are.
func TestRefusedPostsChangeNoKeys(t *testing.T) {
	w := newWorld()
	w.id.LastKey, w.id.NextKey = "zeroth", ""
	c := w.cores["https://old.example"]
	c.noPosts = true
	c.keys["zeroth"] = true
	n := w.open(t, "")
	for range 3 {
		if err := beat(n); coreclient.ClassOf(err) != coreclient.Rejected {
			t.Fatal(err)
		}
	}
	if w.heartbeats > 6 || w.id.AuthKey != "first" || w.id.LastKey != "zeroth" {
		t.Errorf("%d heartbeats; the node has the keys %q and %q", w.heartbeats, w.id.AuthKey.Reveal(), w.id.LastKey.Reveal())
	}
}

// A Core that was restored to before a rotation knows the last key alone.
func TestTheLastKeyIsKept(t *testing.T) {
	w := newWorld()
	c := w.cores["https://old.example"]
	n := w.open(t, "")
	c.offers = "second"
	c.keys["second"] = true
	for range 3 {
		if err := beat(n); err != nil {
			t.Fatal(err)
		}
	}
	c.keys = map[secret.Text]bool{"first": true} // restored
	if err := beat(n); err != nil || w.id.AuthKey != "first" {
		t.Fatalf("%v; the node has the key %q", err, w.id.AuthKey.Reveal())
	}
}

// A Core that answers, though not as it should, has not moved.
func TestABusyCoreHasNotMoved(t *testing.T) {
	w := newWorld()
	old := w.cores["https://old.example"]
	old.said.NextURL = "https://new.example"
	w.cores["https://new.example"] = &core{keys: map[secret.Text]bool{"first": true}, said: old.said}
	n := w.open(t, "")
	if err := beat(n); err != nil {
		t.Fatal(err)
	}
	old.busy = true
	if err := beat(n); err == nil || w.id.CoreURL != "https://old.example" {
		t.Errorf("%v, at %s", err, w.id.CoreURL)
	}
}

func (c *client) Update(context.Context, string) (coreclient.Update, error) {
	return coreclient.Update{}, c.ask()
}

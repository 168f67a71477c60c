package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
	"nodeagent/xray"
	"nodeagent/xray/ipc"
)

// keptSessions is a session store of a daemon that ended at a time.
type keptSessions struct {
	online map[store.SessionKey]wire.SessionEvent
	last   time.Time
	told   []store.SessionEvent
}

func (k *keptSessions) Online() (map[store.SessionKey]wire.SessionEvent, error) { return k.online, nil }
func (k *keptSessions) LastWrite() time.Time                                    { return k.last }
func (k *keptSessions) Sessions(_ time.Time, events []store.SessionEvent) error {
	k.told = append(k.told, events...)
	return nil
}

// engines are the owners of slots: of Xray below 100, of telemt above it.
type engines struct{}

func (engines) Owner(slot uint32) (store.Owner, bool) {
	owner := store.Owner{Engine: store.EngineXray, Attribution: &store.Attribution{UserID: int64(slot), Protocol: "vless"}}
	if slot >= 100 {
		owner.Engine = store.EngineTelemt
	}
	return owner, true
}

func second(n int) time.Time { return noon.Add(time.Duration(n) * time.Second) }

func at(n int, slot uint32, online bool) ipc.Presence {
	return ipc.Presence{Slot: slot, IP: netip.MustParseAddr("192.0.2.1"), Online: online, At: second(n)}
}

// Sessions on adopted workers go on, and nothing is told twice of them. Those of a daemon whose
// workers ended with it end when it wrote last.
func TestSessionsOverARestart(t *testing.T) {
	kept := func() *keptSessions {
		k := &keptSessions{online: map[store.SessionKey]wire.SessionEvent{}, last: second(50)}
		for _, slot := range []uint32{1, 2, 3, 100} {
			k.online[store.SessionKey{Slot: slot, IP: netip.MustParseAddr("192.0.2.1")}] = wire.SessionEvent{
				UserID: int64(slot), EventType: wire.Online, OccurredAt: second(0), IPAddress: "192.0.2.1", Protocol: "vless",
			}
		}
		return k
	}
	tracker := func(k *keptSessions) *sessionTracker {
		return newSessionTracker(NewInbox(), k, engines{}, 30*time.Second, func() {})
	}
	lines := func(events []store.SessionEvent) []string {
		all := told(events)
		slices.Sort(all)
		return all
	}
	t.Run("nothing is adopted", func(t *testing.T) {
		k := kept()
		if err := tracker(k).takeOver(second(60), xray.Adopted{}); err != nil {
			t.Fatal(err)
		}
		if got, want := lines(k.told), []string{"offline 1 192.0.2.1 50", "offline 2 192.0.2.1 50", "offline 3 192.0.2.1 50"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
	t.Run("telemts", func(t *testing.T) {
		k := kept()
		for _, slot := range []uint32{101, 102, 103} {
			k.online[store.SessionKey{Slot: slot, IP: netip.MustParseAddr("192.0.2.1")}] = wire.SessionEvent{
				UserID: int64(slot), EventType: wire.Online, OccurredAt: second(0), IPAddress: "192.0.2.1", Protocol: "mtproto",
			}
		}
		s := tracker(k)
		if err := s.takeOver(second(60), xray.Adopted{}); err != nil {
			t.Fatal(err)
		}
		k.told, k.last = nil, second(70)
		// 100 is online, 101 is gone, 102 was removed meanwhile, and 103 comes again after the answer of
		// its telemt.
		s.inbox.addSessions(changeOf(at(61, 100, true)))
		s.inbox.SlotsClosed([]uint32{102})
		if got, want := lines(s.step(second(71))), []string{"offline 102 192.0.2.1 50"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		s.inbox.telemtsKnown()
		s.inbox.addSessions(changeOf(at(75, 103, true)))
		if got := lines(s.step(second(75))); len(got) != 0 {
			t.Errorf("told %q within the linger", got)
		}
		if got, want := lines(s.step(second(105))), []string{"offline 101 192.0.2.1 50"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		// The daemon leaves: telemt goes on.
		if err := s.suspend(second(110)); err != nil || len(k.told) != 0 {
			t.Errorf("told %q (%v)", lines(k.told), err)
		}
	})
	t.Run("the daemon ends before telemts have told", func(t *testing.T) {
		k := kept()
		s := tracker(k)
		if err := s.takeOver(second(60), xray.Adopted{}); err != nil {
			t.Fatal(err)
		}
		k.told, k.last = nil, second(60)
		if err := s.finish(second(61)); err != nil {
			t.Fatal(err)
		}
		if got, want := lines(k.told), []string{"offline 100 192.0.2.1 50"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
	t.Run("a worker is adopted", func(t *testing.T) {
		k := kept()
		s := tracker(k)
		// 1 is online. 2 went at second 52, while no daemon ran. 3 went, and nobody stored it. 4 came
		// at second 54. 5 came and went. 100 is telemt's.
		err := s.takeOver(second(60), xray.Adopted{
			Workers: 1,
			Events:  []ipc.Presence{at(52, 2, false), at(54, 4, true), at(55, 5, true), at(56, 5, false)},
			Online:  []ipc.Presence{at(0, 1, true), at(54, 4, true)},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := lines(k.told), []string{"online 4 192.0.2.1 54", "online 5 192.0.2.1 55"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		if got := lines(s.step(second(89))); len(got) != 0 {
			t.Errorf("told %q within the linger", got)
		}
		if got, want := lines(s.step(second(90))), []string{"offline 2 192.0.2.1 52", "offline 3 192.0.2.1 50", "offline 5 192.0.2.1 56"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		// The daemon leaves: what is on Xray's workers goes on.
		k.told = nil
		if err := s.suspend(second(100)); err != nil || len(k.told) != 0 {
			t.Errorf("told %q (%v)", lines(k.told), err)
		}
	})
}

// A start gives back the slot of a telemt client that was removed by the last daemon. Its session ends
// before another client can have the slot.
func TestSessionsOfASlotThatAStartGivesBack(t *testing.T) {
	db := openStore(t)
	n := newNode(t, db)
	owner := func(user int64) store.Owner {
		return store.Owner{
			Engine: store.EngineTelemt, Tag: "mtproto-1", Key: fmt.Sprint(user),
			Attribution: &store.Attribution{UserID: user, SubscriptionID: &user, NodeProtocolID: 1, Protocol: string(wire.ProtocolMTProto)},
		}
	}
	slotOf := func(user int64) uint32 {
		t.Helper()
		slots, err := db.Assign([]store.Owner{owner(user)})
		if err != nil {
			t.Fatal(err)
		}
		return slots[0]
	}
	slot := slotOf(1)
	online := func(user int64) sessionChange {
		return sessionChange{key: store.SessionKey{Slot: slotOf(user), IP: netip.MustParseAddr("192.0.2.1")}, online: true, at: second(int(user))}
	}
	first := newSessionTracker(NewInbox(), db, db, 30*time.Second, func() {})
	first.inbox.addSessions(online(1))
	if err := first.suspend(second(1)); err != nil {
		t.Fatal(err)
	}

	n.boot()
	n.releaseUnusedLocked()
	if got := slotOf(2); got != slot {
		t.Fatalf("the second client has slot %d, not the first one's %d", got, slot)
	}
	n.inbox.addSessions(online(2))
	got := told(n.sessions.step(second(10)))
	for i, want := range []string{"offline 1 192.0.2.1", "online 2 192.0.2.1 2"} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("told %q: the event %d is not %q", got, i, want)
		}
	}
}

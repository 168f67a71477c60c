package agent

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
	"nodeagent/xray/ipc"
)

// noon is when the tests' clock begins.
var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

type oneOwner struct{}

func (oneOwner) Owner(slot uint32) (store.Owner, bool) {
	return store.Owner{Attribution: &store.Attribution{UserID: int64(slot), Protocol: "vless"}}, true
}

func newTestTracker() *sessionTracker {
	return newSessionTracker(NewInbox(), nil, oneOwner{}, 30*time.Second, func() {})
}

func (s *sessionTracker) at(second int, slot uint32, ip string, online bool) {
	s.inbox.XrayPresence(ipc.Presence{Slot: slot, IP: netip.MustParseAddr(ip), Online: online, At: noon.Add(time.Duration(second) * time.Second)})
}

func told(events []store.SessionEvent) []string {
	var lines []string
	for _, e := range events {
		lines = append(lines, fmt.Sprintf("%s %d %s %d", e.Event.EventType, e.Event.UserID, e.Event.IPAddress, int(e.Event.OccurredAt.Sub(noon).Seconds())))
	}
	return lines
}

func TestOfflineComesAfterTheLingerWithTheTrueMoment(t *testing.T) {
	s := newTestTracker()
	s.at(0, 1, "192.0.2.1", true)
	s.at(10, 1, "192.0.2.1", false)
	var lines []string
	for second := 10; second < 60; second++ {
		lines = append(lines, told(s.step(noon.Add(time.Duration(second)*time.Second)))...)
	}
	if want := []string{"online 1 192.0.2.1 0", "offline 1 192.0.2.1 10"}; !reflect.DeepEqual(lines, want) {
		t.Errorf("told %v, want %v", lines, want)
	}
}

func TestComingBackWithinTheLingerIsNoNews(t *testing.T) {
	s := newTestTracker()
	s.at(0, 1, "192.0.2.1", true)
	s.at(10, 1, "192.0.2.1", false)
	lines := told(s.step(noon.Add(20 * time.Second)))
	s.at(25, 1, "192.0.2.1", true)
	s.at(26, 1, "192.0.2.1", false)
	for _, second := range []int{26, 50, 56} {
		lines = append(lines, told(s.step(noon.Add(time.Duration(second)*time.Second)))...)
	}
	if want := []string{"online 1 192.0.2.1 0", "offline 1 192.0.2.1 26"}; !reflect.DeepEqual(lines, want) {
		t.Errorf("told %v, want %v", lines, want)
	}
}

func TestARemovedClientGoesOfflineAtOnce(t *testing.T) {
	s := newTestTracker()
	s.at(0, 1, "192.0.2.1", true)
	s.at(0, 1, "2001:db8::1", true)
	s.at(5, 1, "192.0.2.1", false)
	s.at(6, 1, "2001:db8::1", false)
	s.inbox.SlotsClosed([]uint32{1})
	if lines := told(s.step(noon.Add(7 * time.Second))); len(lines) != 4 {
		t.Errorf("told %v, want two onlines and two offlines", lines)
	}
}

// Whatever comes in whatever order, each client and address is told online and
// offline in turn, and offline at the end.
func TestOnlineAndOfflineAlternate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newTestTracker()
		online := map[store.SessionKey]bool{}
		second := 0
		take := func(events []store.SessionEvent) {
			for _, e := range events {
				if on := e.Event.EventType == wire.Online; on == online[e.SessionKey] {
					t.Fatalf("%s twice for %v", e.Event.EventType, e.SessionKey)
				}
				online[e.SessionKey] = !online[e.SessionKey]
			}
		}
		here := map[uint32]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "changes") {
			second += rapid.IntRange(0, 40).Draw(t, "seconds")
			slot := rapid.Uint32Range(1, 2).Draw(t, "slot")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				take(s.step(noon.Add(time.Duration(second) * time.Second)))
			case 1:
				s.inbox.SlotsClosed([]uint32{slot})
			default:
				here[slot] = !here[slot]
				s.at(second, slot, "192.0.2.1", here[slot])
			}
		}
		for slot, is := range here {
			if is {
				s.at(second, slot, "192.0.2.1", false)
			}
		}
		take(s.step(noon.Add(time.Duration(second+1) * time.Second)))
		take(s.step(noon.Add(time.Duration(second+100) * time.Second)))
		for key, is := range online {
			if is {
				t.Fatalf("%v is never told offline", key)
			}
		}
	})
}

// An event of one session takes as long with many sessions as with few: the ratio of the two
// is near one.
func BenchmarkOneSessionOfMany(b *testing.B) {
	for _, many := range []int{100, 100_000} {
		b.Run(fmt.Sprint(many), func(b *testing.B) {
			s := newTestTracker()
			for slot := range many {
				s.at(0, uint32(slot+1), "192.0.2.1", true)
			}
			s.step(noon)
			now := noon
			for b.Loop() {
				now = now.Add(time.Minute)
				s.inbox.XrayPresence(ipc.Presence{Slot: 1, IP: netip.MustParseAddr("192.0.2.1"), At: now})
				s.step(now)
				s.step(now.Add(31 * time.Second)) // it is offline
				s.inbox.XrayPresence(ipc.Presence{Slot: 1, IP: netip.MustParseAddr("192.0.2.1"), Online: true, At: now})
				s.step(now.Add(31 * time.Second))
				s.untilNextOffline(0)
			}
		})
	}
}

package agent

import (
	"context"
	"slices"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
)

// slotOwners tells whom a slot counts for.
type slotOwners interface {
	Owner(slot uint32) (store.Owner, bool)
}

// sessionTracker turns the begin and end of streams into a person's online and
// offline: offline is told once no stream has been there for the linger, with
// the moment at which the last one ended. Between two onlines of a client and
// address there is always an offline.
type sessionTracker struct {
	inbox  *Inbox
	store  sessionStore
	owners slotOwners
	linger time.Duration
	told   func() // something waits for delivery

	// The members below are the loop's alone.
	online    map[store.SessionKey]*session
	bySlot    map[uint32][]store.SessionKey // of online, by slot
	unwritten []store.SessionEvent          // the disk was full; in order
	writeAt   time.Time                     // not before
}

const (
	// maxUnwritten is how many events wait for a disk that can't be written, before the
	// oldest are dropped.
	maxUnwritten = 100_000
	writeAgain   = time.Second
)

type sessionChange struct {
	key    store.SessionKey
	online bool
	at     time.Time
	ended  bool // the client was removed: no linger
}

// session is a client that Core was told is online.
type session struct {
	event wire.SessionEvent // the online
	left  time.Time         // when the last stream ended, as told; zero while one is there
	since time.Time         // when that was heard: from here the linger runs, whatever the wall clock does
}

func newSessionTracker(inbox *Inbox, v sessionStore, o slotOwners, linger time.Duration, told func()) *sessionTracker {
	return &sessionTracker{
		inbox: inbox, store: v, owners: o, linger: linger, told: told,
		online: map[store.SessionKey]*session{}, bySlot: map[uint32][]store.SessionKey{},
	}
}

// run takes changes until ctx ends.
func (s *sessionTracker) run(ctx context.Context) {
	retry := time.Duration(0)
	for {
		timer := time.NewTimer(s.untilNextOffline(retry))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.inbox.wakeSessions:
		case <-timer.C:
		}
		timer.Stop()
		now := time.Now()
		s.unwritten = append(s.unwritten, s.step(now)...)
		if over := len(s.unwritten) - maxUnwritten; over > 0 {
			s.unwritten = s.unwritten[over:]
		}
		retry = 0
		if len(s.unwritten) == 0 {
			continue
		}
		if now.Before(s.writeAt) {
			retry = s.writeAt.Sub(now)
			continue
		}
		if err := s.store.Sessions(now, s.unwritten); err != nil {
			retry = writeAgain
			s.writeAt = now.Add(writeAgain)
			continue
		}
		s.unwritten = nil
		s.told()
	}
}

// step returns the events that the waiting changes and the time lead to.
func (s *sessionTracker) step(now time.Time) []store.SessionEvent {
	var events []store.SessionEvent
	for _, c := range s.inbox.takeSessions() {
		events = append(events, s.change(c, now)...)
	}
	for key, v := range s.online {
		if !v.left.IsZero() && now.Sub(v.since) >= s.linger {
			events = append(events, s.offline(key, v.left))
		}
	}
	return events
}

func (s *sessionTracker) change(c sessionChange, now time.Time) []store.SessionEvent {
	v := s.online[c.key]
	switch {
	case c.ended:
		return s.endSlot(c.key.Slot)
	case c.online && v != nil:
		v.left = time.Time{} // back within the linger
	case c.online:
		return s.begin(c)
	case v != nil:
		v.left, v.since = c.at, now
	}
	return nil
}

func (s *sessionTracker) begin(c sessionChange) []store.SessionEvent {
	owner, known := s.owners.Owner(c.key.Slot)
	if !known || owner.Attribution == nil {
		return nil // nobody's
	}
	event := wire.SessionEvent{
		UserID: owner.Attribution.UserID, Protocol: wire.VpnProtocol(owner.Attribution.Protocol),
		EventType: wire.Online, OccurredAt: c.at.UTC(),
	}
	if c.key.IP.IsValid() {
		event.IPAddress = c.key.IP.String()
	}
	s.online[c.key] = &session{event: event}
	s.bySlot[c.key.Slot] = append(s.bySlot[c.key.Slot], c.key)
	return []store.SessionEvent{{SessionKey: c.key, Event: event}}
}

func (s *sessionTracker) endSlot(slot uint32) []store.SessionEvent {
	var events []store.SessionEvent
	for _, key := range slices.Clone(s.bySlot[slot]) {
		if v := s.online[key]; !v.left.IsZero() {
			events = append(events, s.offline(key, v.left))
		}
	}
	return events
}

func (s *sessionTracker) offline(key store.SessionKey, at time.Time) store.SessionEvent {
	event := s.online[key].event
	delete(s.online, key)
	left := slices.DeleteFunc(s.bySlot[key.Slot], func(v store.SessionKey) bool { return v == key })
	if s.bySlot[key.Slot] = left; len(left) == 0 {
		delete(s.bySlot, key.Slot)
	}
	event.EventType, event.OccurredAt = wire.Offline, at.UTC()
	return store.SessionEvent{SessionKey: key, Event: event}
}

// untilNextOffline is how long nothing can happen by itself.
func (s *sessionTracker) untilNextOffline(retry time.Duration) time.Duration {
	if retry > 0 {
		return retry
	}
	wait := time.Hour
	now := time.Now()
	for _, v := range s.online {
		if !v.left.IsZero() {
			wait = min(wait, v.since.Add(s.linger).Sub(now))
		}
	}
	return max(wait, 0)
}

// endStale tells offline for those whom an earlier daemon, which crashed, left
// online: at the last moment of which the store knows.
func (s *sessionTracker) endStale(now time.Time) error {
	old, err := s.store.Online()
	if err != nil || len(old) == 0 {
		return err
	}
	last := s.store.LastWrite()
	var events []store.SessionEvent
	for key, event := range old {
		event.EventType = wire.Offline
		if last.After(event.OccurredAt) {
			event.OccurredAt = last.UTC()
		}
		events = append(events, store.SessionEvent{SessionKey: key, Event: event})
	}
	if err := s.store.Sessions(now, events); err != nil {
		s.unwritten = append(s.unwritten, events...) // before all others
		return err
	}
	return nil
}

// finish tells offline for all who are online, when the engines have ended.
func (s *sessionTracker) finish(now time.Time) error {
	events := append(s.unwritten, s.step(now)...)
	for key, v := range s.online {
		at := v.left
		if at.IsZero() {
			at = now
		}
		events = append(events, s.offline(key, at))
	}
	if len(events) == 0 {
		return nil
	}
	return s.store.Sessions(now, events)
}

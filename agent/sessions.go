package agent

import (
	"context"
	"slices"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
)

// owners tells whom a slot counts for.
type owners interface {
	Owner(slot uint32) (store.Owner, bool)
}

// sessions turns the begin and end of streams into a person's online and
// offline: offline is told once no stream has been there for the linger, with
// the moment at which the last one ended. Between two onlines of a client and
// address there is always an offline.
type sessions struct {
	inbox    *Inbox
	visitors visitors
	owners   owners
	linger   time.Duration
	told     func() // something waits for delivery

	// The members below are the loop's alone.
	online    map[store.Visitor]*visit
	ofSlot    map[uint32][]store.Visitor // of online, by slot
	unwritten []store.SessionEvent       // the disk was full; in order
	writeAt   time.Time                  // not before
}

const (
	// maxUnwritten is how many events wait for a disk that can't be written, before the
	// oldest are dropped.
	maxUnwritten = 100_000
	writeAgain   = time.Second
)

type sessionChange struct {
	visitor store.Visitor
	online  bool
	at      time.Time
	ended   bool // the client was removed: no linger
}

// visit is a client that Core was told is online.
type visit struct {
	event wire.SessionEvent // the online
	left  time.Time         // when the last stream ended, as told; zero while one is there
	since time.Time         // when that was heard: from here the linger runs, whatever the wall clock does
}

func newSessions(inbox *Inbox, v visitors, o owners, linger time.Duration, told func()) *sessions {
	return &sessions{
		inbox: inbox, visitors: v, owners: o, linger: linger, told: told,
		online: map[store.Visitor]*visit{}, ofSlot: map[uint32][]store.Visitor{},
	}
}

// run takes changes until ctx ends.
func (s *sessions) run(ctx context.Context) {
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
		if err := s.visitors.Sessions(now, s.unwritten); err != nil {
			retry = writeAgain
			s.writeAt = now.Add(writeAgain)
			continue
		}
		s.unwritten = nil
		s.told()
	}
}

// step returns the events that the waiting changes and the time lead to.
func (s *sessions) step(now time.Time) []store.SessionEvent {
	var events []store.SessionEvent
	for _, c := range s.inbox.takeSessions() {
		events = append(events, s.change(c, now)...)
	}
	for visitor, v := range s.online {
		if !v.left.IsZero() && now.Sub(v.since) >= s.linger {
			events = append(events, s.offline(visitor, v.left))
		}
	}
	return events
}

func (s *sessions) change(c sessionChange, now time.Time) []store.SessionEvent {
	v := s.online[c.visitor]
	switch {
	case c.ended:
		return s.endSlot(c.visitor.Slot)
	case c.online && v != nil:
		v.left = time.Time{} // back within the linger
	case c.online:
		return s.arrive(c)
	case v != nil:
		v.left, v.since = c.at, now
	}
	return nil
}

func (s *sessions) arrive(c sessionChange) []store.SessionEvent {
	owner, known := s.owners.Owner(c.visitor.Slot)
	if !known || owner.Attribution == nil {
		return nil // nobody's
	}
	event := wire.SessionEvent{
		UserID: owner.Attribution.UserID, Protocol: wire.VpnProtocol(owner.Attribution.Protocol),
		EventType: wire.Online, OccurredAt: c.at.UTC(),
	}
	if c.visitor.IP.IsValid() {
		event.IPAddress = c.visitor.IP.String()
	}
	s.online[c.visitor] = &visit{event: event}
	s.ofSlot[c.visitor.Slot] = append(s.ofSlot[c.visitor.Slot], c.visitor)
	return []store.SessionEvent{{Visitor: c.visitor, Event: event}}
}

func (s *sessions) endSlot(slot uint32) []store.SessionEvent {
	var events []store.SessionEvent
	for _, visitor := range slices.Clone(s.ofSlot[slot]) {
		if v := s.online[visitor]; !v.left.IsZero() {
			events = append(events, s.offline(visitor, v.left))
		}
	}
	return events
}

func (s *sessions) offline(visitor store.Visitor, at time.Time) store.SessionEvent {
	event := s.online[visitor].event
	delete(s.online, visitor)
	left := slices.DeleteFunc(s.ofSlot[visitor.Slot], func(v store.Visitor) bool { return v == visitor })
	if s.ofSlot[visitor.Slot] = left; len(left) == 0 {
		delete(s.ofSlot, visitor.Slot)
	}
	event.EventType, event.OccurredAt = wire.Offline, at.UTC()
	return store.SessionEvent{Visitor: visitor, Event: event}
}

// untilNextOffline is how long nothing can happen by itself.
func (s *sessions) untilNextOffline(retry time.Duration) time.Duration {
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

// endOld tells offline for those whom an earlier daemon, which crashed, left
// online: at the last moment of which the store knows.
func (s *sessions) endOld(now time.Time) error {
	old, err := s.visitors.Online()
	if err != nil || len(old) == 0 {
		return err
	}
	last := s.visitors.LastWrite()
	var events []store.SessionEvent
	for visitor, event := range old {
		event.EventType = wire.Offline
		if last.After(event.OccurredAt) {
			event.OccurredAt = last.UTC()
		}
		events = append(events, store.SessionEvent{Visitor: visitor, Event: event})
	}
	if err := s.visitors.Sessions(now, events); err != nil {
		s.unwritten = append(s.unwritten, events...) // before all others
		return err
	}
	return nil
}

// finish tells offline for all who are online, when the engines have ended.
func (s *sessions) finish(now time.Time) error {
	events := append(s.unwritten, s.step(now)...)
	for visitor, v := range s.online {
		at := v.left
		if at.IsZero() {
			at = now
		}
		events = append(events, s.offline(visitor, at))
	}
	if len(events) == 0 {
		return nil
	}
	return s.visitors.Sessions(now, events)
}

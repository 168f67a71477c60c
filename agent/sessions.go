package agent

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
	"nodeagent/xray"
)

// slotOwners knows who owns a slot; store.Store does.
type slotOwners interface {
	Owner(slot uint32) (store.Owner, bool)
}

// sessionTracker turns the presence that engines report into session events for Core. A
// session is a client at one address. Its online event is sent when the first stream begins;
// its offline event is sent when no stream has come for the linger, and names the time at
// which the last stream ended. Between two online events of a session there is always an
// offline event.
//
// The goroutine of run owns everything but inbox, which has a lock of its own. takeOver is
// called before run, and finish or suspend after it.
//
// The store keeps which sessions are online, in the transaction that queues their events. So
// the daemon that starts after a crash can go on with them or end them (takeOver).
type sessionTracker struct {
	inbox  *Inbox
	store  sessionStore
	owners slotOwners
	linger atomic.Int64 // a time.Duration; any goroutine may set it
	queued func()       // called when events are in the outbox

	online map[store.SessionKey]*session // sessions that Core was told are online
	// inherited has those sessions of online that are on telemts of the daemon before, until the telemts
	// have told which of them are open. The values are when that daemon saw the sessions last.
	inherited map[store.SessionKey]time.Time
	leaving   []departure                   // in order of since: the linger is the same for all
	bySlot    map[uint32][]store.SessionKey // the keys of online
	unwritten []store.SessionEvent          // that could not be stored yet, in order
	writeAt   time.Time                     // when to try to store them again
}

const (
	// maxUnwritten bounds how many events wait while the disk can't be written. The oldest
	// ones are dropped beyond it.
	maxUnwritten = 100_000
	// writeAgain is the pause after a write that failed.
	writeAgain = time.Second
)

// sessionChange is a report of an engine: either the presence of a session, or that the
// client of a slot was removed, or that the adopted telemts have told who is online.
type sessionChange struct {
	key    store.SessionKey
	online bool      // a stream is open; not used where ended or known is set
	at     time.Time // when the first stream began or the last one ended
	ended  bool      // the client of key.Slot was removed: its sessions end without the linger
	known  bool      // the telemts that were adopted have told who is online
}

// session is one that Core was told is online.
type session struct {
	event wire.SessionEvent // its online event
	left  time.Time         // when the last stream ended, says the engine; zero while one is open
	// since is when the tracker learned of left. The linger counts from here: this reading
	// of the clock is monotonic, so that a change of the wall clock does not matter.
	since time.Time
}

// departure says that the last stream of a session ended, as the tracker learned at a time. It
// means nothing any more where the session has another since, or a stream.
type departure struct {
	key   store.SessionKey
	since time.Time
}

func newSessionTracker(inbox *Inbox, v sessionStore, o slotOwners, linger time.Duration, queued func()) *sessionTracker {
	s := &sessionTracker{
		inbox: inbox, store: v, owners: o, queued: queued,
		online: map[store.SessionKey]*session{}, inherited: map[store.SessionKey]time.Time{}, bySlot: map[uint32][]store.SessionKey{},
	}
	s.linger.Store(int64(linger))
	return s
}

// run handles what the engines report, and ends sessions after the linger, until ctx ends.
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
		s.queued()
	}
}

// step handles what is in the inbox, and returns the events that follow from it and from the
// time.
func (s *sessionTracker) step(now time.Time) []store.SessionEvent {
	var events []store.SessionEvent
	for _, c := range s.inbox.takeSessions() {
		events = append(events, s.change(c, now)...)
	}
	for {
		first, found := s.firstDeparture()
		if !found || now.Sub(first.since) < time.Duration(s.linger.Load()) {
			return events
		}
		events = append(events, s.offline(first.key, s.online[first.key].left))
	}
}

// firstDeparture returns the departure that is the longest ago, and forgets those before it that
// mean nothing any more. So no event makes the tracker look at all sessions.
func (s *sessionTracker) firstDeparture() (first departure, found bool) {
	for len(s.leaving) > 0 {
		first = s.leaving[0]
		if v := s.online[first.key]; v != nil && !v.left.IsZero() && v.since.Equal(first.since) {
			return first, true
		}
		s.leaving = s.leaving[1:]
	}
	return departure{}, false
}

func (s *sessionTracker) change(c sessionChange, now time.Time) []store.SessionEvent {
	switch {
	case c.known:
		s.endInherited(now)
		return nil
	case c.ended:
		return s.endSlot(c.key.Slot)
	}
	delete(s.inherited, c.key)
	v := s.online[c.key]
	switch {
	case c.online && v != nil:
		v.left = time.Time{} // a new stream within the linger
	case c.online:
		return s.begin(c)
	case v != nil:
		s.depart(c.key, c.at, now)
	}
	return nil
}

// depart notes that the last stream of a session ended at a time.
func (s *sessionTracker) depart(key store.SessionKey, at, now time.Time) {
	s.online[key].left, s.online[key].since = at, now
	s.leaving = append(s.leaving, departure{key, now})
}

// begin starts a session. A client that is attributed to no user has none.
func (s *sessionTracker) begin(c sessionChange) []store.SessionEvent {
	owner, known := s.owners.Owner(c.key.Slot)
	if !known || owner.Attribution == nil {
		return nil
	}
	event := wire.SessionEvent{
		UserID: owner.Attribution.UserID, Protocol: wire.VpnProtocol(owner.Attribution.Protocol),
		EventType: wire.Online, OccurredAt: c.at.UTC(),
	}
	if c.key.IP.IsValid() {
		event.IPAddress = c.key.IP.String()
	}
	s.add(c.key, event)
	return []store.SessionEvent{{SessionKey: c.key, Event: event}}
}

// add notes a session that Core was told is online.
func (s *sessionTracker) add(key store.SessionKey, online wire.SessionEvent) {
	s.online[key] = &session{event: online}
	s.bySlot[key.Slot] = append(s.bySlot[key.Slot], key)
}

// endSlot ends the sessions of a removed client whose last stream has ended.
func (s *sessionTracker) endSlot(slot uint32) []store.SessionEvent {
	var events []store.SessionEvent
	for _, key := range slices.Clone(s.bySlot[slot]) {
		if v := s.online[key]; !v.left.IsZero() {
			events = append(events, s.offline(key, v.left))
		} else if last, is := s.inherited[key]; is { // the slot may get another owner
			events = append(events, s.offline(key, last))
		}
	}
	return events
}

// endInherited notes that the sessions ended that no telemt has told to be open. A client that comes
// again within the linger goes on with its session.
func (s *sessionTracker) endInherited(now time.Time) {
	for key, last := range s.inherited {
		s.depart(key, last, now)
	}
	clear(s.inherited)
}

// offline ends a session, and returns its offline event.
func (s *sessionTracker) offline(key store.SessionKey, at time.Time) store.SessionEvent {
	event := s.online[key].event
	delete(s.online, key)
	delete(s.inherited, key)
	left := slices.DeleteFunc(s.bySlot[key.Slot], func(v store.SessionKey) bool { return v == key })
	if s.bySlot[key.Slot] = left; len(left) == 0 {
		delete(s.bySlot, key.Slot)
	}
	event.EventType, event.OccurredAt = wire.Offline, at.UTC()
	return store.SessionEvent{SessionKey: key, Event: event}
}

// untilNextOffline returns the time until the first linger ends, or retry where that is
// positive.
func (s *sessionTracker) untilNextOffline(retry time.Duration) time.Duration {
	if retry > 0 {
		return retry
	}
	first, found := s.firstDeparture()
	if !found {
		return time.Hour
	}
	return max(time.Until(first.since.Add(time.Duration(s.linger.Load()))), 0)
}

// takeOver goes on with the sessions of the daemon before that are on adopted workers or on telemts, and
// ends the others. The end of those is the time of that daemon's last write to the store. Which of telemt's
// sessions are open is known only once telemts were adopted: see endInherited.
func (s *sessionTracker) takeOver(now time.Time, adopted xray.Adopted) error {
	old, err := s.store.Online()
	if err != nil {
		return err
	}
	var events []store.SessionEvent
	for key, event := range old {
		owner, known := s.owners.Owner(key.Slot)
		if known && owner.Engine == store.EngineTelemt {
			s.add(key, event)
			s.inherited[key] = s.lastSeen(event)
			continue
		}
		if adopted.Workers > 0 && known && owner.Engine == store.EngineXray {
			s.add(key, event)
			continue
		}
		event.EventType, event.OccurredAt = wire.Offline, s.lastSeen(event)
		events = append(events, store.SessionEvent{SessionKey: key, Event: event})
	}
	here := map[store.SessionKey]bool{}
	for _, p := range adopted.Events {
		events = append(events, s.change(changeOf(p), now)...)
	}
	for _, p := range adopted.Online {
		c := changeOf(p)
		here[c.key] = true
		events = append(events, s.change(c, now)...)
	}
	for key, v := range s.online {
		if _, is := s.inherited[key]; !is && !here[key] && v.left.IsZero() {
			// It ended, and the daemon before learned of it and did not store it.
			s.depart(key, s.lastSeen(v.event), now)
		}
	}
	if len(events) == 0 {
		return nil
	}
	if err := s.store.Sessions(now, events); err != nil {
		s.unwritten = append(s.unwritten, events...) // run stores them before any other
		return err
	}
	return nil
}

// lastSeen is when the daemon before saw a session last, of which online is the event.
func (s *sessionTracker) lastSeen(online wire.SessionEvent) time.Time {
	if last := s.store.LastWrite(); last.After(online.OccurredAt) {
		return last.UTC()
	}
	return online.OccurredAt
}

// suspend stores the events so far, once the engines have ended. The sessions go on under the next
// daemon.
func (s *sessionTracker) suspend(now time.Time) error {
	events := append(s.unwritten, s.step(now)...)
	if len(events) == 0 {
		return nil
	}
	return s.store.Sessions(now, events)
}

// finish ends all sessions, once the engines have ended.
func (s *sessionTracker) finish(now time.Time) error {
	events := append(s.unwritten, s.step(now)...)
	for key := range s.online {
		events = append(events, s.end(key, now))
	}
	if len(events) == 0 {
		return nil
	}
	return s.store.Sessions(now, events)
}

// end ends a session: when its last stream ended, when the daemon before saw it last, or now.
func (s *sessionTracker) end(key store.SessionKey, now time.Time) store.SessionEvent {
	if last, is := s.inherited[key]; is { // no telemt has told yet whether it is open
		return s.offline(key, last)
	}
	if at := s.online[key].left; !at.IsZero() {
		return s.offline(key, at)
	}
	return s.offline(key, now)
}

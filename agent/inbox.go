package agent

import (
	"slices"
	"sync"
	"time"

	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/telemt/service"
	"nodeagent/xray"
	"nodeagent/xray/ipc"
)

// Inbox takes what the engines report by themselves. It is made first; the engines are made
// with its methods in their Deps; the agent is made with the engines, and reads it:
//
//	Presence       → the goroutine of sessionTracker.run (sessions.go)
//	SlotsClosed    → the same goroutine, and the collect loop (slots.go)
//	Failed, Noted  → the notice loop (failures.go)
//
// Any goroutine may call its methods. They return at once: an engine never waits for the
// agent's disk or network.
type Inbox struct {
	mu       sync.Mutex // no other lock is taken while it is held
	sessions []sessionChange
	closed   []uint32 // slots that no engine counts to any more
	notices  []notice

	// The channels have one slot. They wake the reader of sessions and of notices.
	wakeSessions chan struct{}
	wakeNotices  chan struct{}
}

// notice is something that an engine reported without having been asked. One of xray,
// mtproto and noted is set.
type notice struct {
	at      time.Time
	xray    *xray.Failure
	mtproto *service.Failure
	noted   error
}

// NewInbox makes an empty inbox.
func NewInbox() *Inbox {
	return &Inbox{wakeSessions: make(chan struct{}, 1), wakeNotices: make(chan struct{}, 1)}
}

// XrayPresence takes that a client's first stream from an address began on an Xray
// inbound, or that the last one ended.
func (b *Inbox) XrayPresence(p ipc.Presence) {
	b.addSessions(changeOf(p))
}

func changeOf(p ipc.Presence) sessionChange {
	return sessionChange{key: store.SessionKey{Slot: p.Slot, IP: p.IP}, online: p.Online, at: p.At}
}

// MTProtoPresence takes the same for an MTProto inbound.
func (b *Inbox) MTProtoPresence(p telemt.Presence) {
	b.addSessions(sessionChange{key: store.SessionKey{Slot: p.Slot, IP: p.IP}, online: p.Online, at: p.At})
}

// telemtsKnown takes that the telemts that were adopted have told who is online.
func (b *Inbox) telemtsKnown() { b.addSessions(sessionChange{known: true}) }

// SlotsClosed takes slots of removed clients that no engine counts to any more.
func (b *Inbox) SlotsClosed(slots []uint32) {
	b.sessionsEnd(slots) // first: once it is in closed, the slot can get another owner
	b.addClosed(slots)
}

// sessionsEnd takes slots whose sessions end without the linger.
func (b *Inbox) sessionsEnd(slots []uint32) {
	ended := make([]sessionChange, 0, len(slots))
	for _, slot := range slots {
		ended = append(ended, sessionChange{key: store.SessionKey{Slot: slot}, ended: true})
	}
	b.addSessions(ended...)
}

// XrayFailed takes a failure of the Xray engine that no call of Apply caused.
func (b *Inbox) XrayFailed(f xray.Failure) { b.addNotice(notice{xray: &f}) }

// MTProtoFailed takes a failure of the MTProto engine that no call of Apply caused, and an
// inbound that it can't serve while it serves the others.
func (b *Inbox) MTProtoFailed(f service.Failure) { b.addNotice(notice{mtproto: &f}) }

// MTProtoNoted takes what an operator should know, although it harms no client.
func (b *Inbox) MTProtoNoted(err error) { b.addNotice(notice{noted: err}) }

func (b *Inbox) addSessions(changes ...sessionChange) {
	b.mu.Lock()
	b.sessions = append(b.sessions, changes...)
	b.mu.Unlock()
	wake(b.wakeSessions)
}

func (b *Inbox) takeSessions() []sessionChange {
	b.mu.Lock()
	defer b.mu.Unlock()
	changes := b.sessions
	b.sessions = nil
	return changes
}

func (b *Inbox) addClosed(slots []uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = append(b.closed, slots...)
}

func (b *Inbox) takeClosed() []uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed := b.closed
	b.closed = nil
	return closed
}

// forgetClosed drops the slots that are in use. Their clients were removed and are back, so
// an engine counts to the slots again. It reports a slot again once its client is removed.
func (b *Inbox) forgetClosed(inUse slotSet) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = slices.DeleteFunc(b.closed, func(slot uint32) bool { return inUse.has(slot) })
}

func (b *Inbox) addNotice(n notice) {
	n.at = time.Now()
	b.mu.Lock()
	b.notices = append(b.notices, n)
	b.mu.Unlock()
	wake(b.wakeNotices)
}

func (b *Inbox) takeNotices() []notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	notices := b.notices
	b.notices = nil
	return notices
}

// wake fills a channel of one slot, if it is empty: its reader then handles all that waits.
func wake(reader chan<- struct{}) {
	select {
	case reader <- struct{}{}:
	default:
	}
}

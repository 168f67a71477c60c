package traffic

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// visitor is a client at one source address. The slot identifies the client, because it
// stays the same when the client's account changes.
type visitor struct {
	slot   uint32
	source netip.Addr
}

// visit is what is known of a visitor that is online.
type visit struct {
	streams int       // open ones
	since   time.Time // when the first of them began
}

// visit adds change, 1 or -1, to the number of v's streams. It reports v as online with the
// first stream and as offline with the last one. It calls tell while it holds visitorsMu, so
// that online and offline of one visitor are sent in their order.
func (r *Registry) visit(v visitor, change int) {
	r.visitorsMu.Lock()
	defer r.visitorsMu.Unlock()
	is, known := r.visitors[v]
	now := time.Now().UTC()
	if !known {
		is.since = now
	}
	is.streams += change
	r.visitors[v] = is
	if is.streams == 0 {
		delete(r.visitors, v)
	}
	if !known || is.streams == 0 {
		r.tell(ipc.Message{Presence: []ipc.Presence{{Slot: v.slot, IP: v.source, Online: change > 0, At: now}}})
	}
}

// left reports the slot of a removed user as closed, after its last stream has ended.
func (r *Registry) left(u *user) {
	r.visitorsMu.Lock()
	defer r.visitorsMu.Unlock()
	delete(r.leaving, u)
	r.tell(ipc.Message{Closed: []uint32{u.slotID}})
}

// Snapshot adds to running the known clients and the online ones, and calls tell. No presence and no
// closed slot is reported before tell has returned, so that tell must not block.
func (r *Registry) Snapshot(running *ipc.Running, tell func()) {
	r.KeepSums()
	r.mu.RLock()
	running.Clients = maps.Clone(r.sums)
	r.mu.RUnlock()
	r.visitorsMu.Lock()
	defer r.visitorsMu.Unlock()
	for u := range r.leaving {
		running.Closing = append(running.Closing, u.slotID)
	}
	for v, is := range r.visitors {
		running.Online = append(running.Online, ipc.Presence{Slot: v.slot, IP: v.source, Online: true, At: is.since})
	}
	tell()
}

// KeepSums makes the sums that Snapshot tells, unless they are kept up already. The goroutine that changes
// the clients calls it.
func (r *Registry) KeepSums() {
	r.mu.RLock()
	sums := r.sums
	if sums == nil {
		sums = map[string]state.Sum{}
		for _, u := range r.users {
			u.addTo(sums, true)
		}
	}
	r.mu.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sums = sums
}

// sumLocked keeps the sums up with a user that comes or goes. A user whose limits change goes before and
// comes afterwards.
func (r *Registry) sumLocked(u *user, comes bool) {
	if r.sums != nil {
		u.addTo(r.sums, comes)
	}
}

// addTo adds the user to the sum of its inbound, or takes it away.
func (u *user) addTo(sums map[string]state.Sum, comes bool) {
	var own state.Sum
	own.Add(&state.Client{Email: u.client.Email, Limits: u.limits, Group: u.limitsOf, Grant: u.grant}, u.mark)
	sum := sums[u.inbound].With(own, comes)
	if sums[u.inbound] = sum; sum.Count == 0 {
		delete(sums, u.inbound)
	}
}

// Page returns clients of an inbound, as ipc.ClientsPage asks for them.
func (r *Registry) Page(page ipc.ClientsPage) []ipc.ClientMark {
	var marks []ipc.ClientMark
	r.mu.RLock()
	for email, u := range r.users {
		if u.inbound == page.Tag && email > page.After {
			marks = append(marks, ipc.ClientMark{Email: email, Slot: u.slotID, Mark: u.mark, Limits: u.limits, Group: u.limitsOf, Grant: u.grant})
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(marks, func(a, b ipc.ClientMark) int { return strings.Compare(a.Email, b.Email) })
	return marks[:min(len(marks), ipc.MaxClientsPage)]
}

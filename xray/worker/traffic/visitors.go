package traffic

import (
	"net/netip"
	"time"

	"nodeagent/xray/ipc"
)

// visitor is a client at one source address. The slot identifies the client, because it
// stays the same when the client's account changes.
type visitor struct {
	slot   uint32
	source netip.Addr
}

// visit adds change, 1 or -1, to the number of v's streams. It reports v as online with the
// first stream and as offline with the last one. It calls tell while it holds visitorsMu, so
// that online and offline of one visitor are sent in their order.
func (r *Registry) visit(v visitor, change int) {
	r.visitorsMu.Lock()
	defer r.visitorsMu.Unlock()
	before := r.visitors[v]
	if r.visitors[v] = before + change; before+change == 0 {
		delete(r.visitors, v)
	}
	if before == 0 || before+change == 0 {
		r.tell(presence(v.slot, v.source, change > 0))
	}
}

func presence(slot uint32, source netip.Addr, online bool) ipc.Message {
	return ipc.Message{Presence: []ipc.Presence{{Slot: slot, IP: source, Online: online, At: time.Now().UTC()}}}
}

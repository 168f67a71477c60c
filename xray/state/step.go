package state

import (
	"iter"
	"slices"
	"weak"
)

// step says how a list of clients came from another one, so that the two need not be compared: a change of
// one client among a hundred thousand then costs that client.
type step struct {
	from, to   listID
	gone, come Clients // a client in whose place another one came under its Email is in both
	// secretsApart says that no client that came has the SecretHash of another one.
	secretsApart bool
}

// listID stands for one list of clients, which is not changed while anything has it. It does not keep
// the list in memory, and no later list has it, also not one at the same address.
type listID struct {
	first weak.Pointer[*Client]
	n     int
}

func idOf(list Clients) listID {
	if len(list) == 0 {
		return listID{}
	}
	return listID{weak.Make(&list[0]), len(list)}
}

// Apart returns clients of two inbounds, such that each one that it leaves out is in both. So a comparison of
// the two lists gives the same as one of Clients, and costs less where to was made from from by Change, or
// the other way round.
func Apart(from, to Inbound) (gone, come Clients) {
	is := func(s *step, from, to Inbound) bool {
		return s != nil && s.from == idOf(from.Clients) && s.to == idOf(to.Clients)
	}
	switch {
	case len(from.Clients) == 0 || len(to.Clients) == 0:
	case len(from.Clients) == len(to.Clients) && &from.Clients[0] == &to.Clients[0]:
		return nil, nil
	case is(to.step, from, to):
		return to.step.gone, to.step.come
	case is(from.step, to, from):
		return from.step.come, from.step.gone
	}
	return from.Clients, to.Clients
}

// Change returns the inbound without the clients gone, which it has, and with come; both are sorted by
// Email. ok is false where a client that stays has the Email of one that comes.
func (in Inbound) Change(gone, come Clients) (_ Inbound, ok bool) {
	clients, ok := in.Clients.change(gone, come)
	if !ok {
		return in, false
	}
	s := &step{from: idOf(in.Clients), to: idOf(clients), gone: gone, come: come, secretsApart: in.seen.secretsApart(gone, come)}
	in = in.WithClients(clients, come)
	in.step = s
	return in, true
}

// SecretsApart reports whether it is sure that each client of in that before has not under its Email has a
// secret of its own.
func (in Inbound) SecretsApart(before Inbound) bool {
	s := in.step
	return s != nil && s.secretsApart && s.from == idOf(before.Clients) && s.to == idOf(in.Clients)
}

// Changed returns the inbound after a change of its list of clients in place, which no other inbound
// has yet.
func (in Inbound) Changed() Inbound {
	in.step = nil
	return in
}

// change returns the clients without gone and with come, which are sorted.
func (c Clients) change(gone, come Clients) (all Clients, ok bool) {
	all = make(Clients, 0, max(0, len(c)-len(gone)+len(come)))
	for len(gone)+len(come) > 0 {
		goes := len(come) == 0 || len(gone) > 0 && gone[0].Email <= come[0].Email
		var next *Client
		if goes {
			next, gone = gone[0], gone[1:]
		} else {
			next, come = come[0], come[1:]
		}
		at, is := c.place(next.Email)
		if is != goes {
			return nil, false
		}
		all, c = append(all, c[:at]...), c[at:]
		if goes {
			c = c[1:]
		} else {
			all = append(all, next)
		}
	}
	return append(all, c...), true
}

// HasUUID reports whether a client of the inbound has a UUID with one of the hashes: see Reading.UUIDHash. It
// looks at the clients only where that is not known without.
func (in Inbound) HasUUID(hashes iter.Seq[uint64]) bool {
	perhaps := map[uint64]bool{}
	for hash := range hashes {
		if in.seen == nil || in.seen.uuids.mayHave(hash) {
			perhaps[hash] = true
		}
	}
	return len(perhaps) > 0 && slices.ContainsFunc(in.Clients, func(c *Client) bool { return perhaps[c.Reading.UUIDHash] })
}

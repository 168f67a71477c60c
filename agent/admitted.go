package agent

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"slices"

	"nodeagent/telemt/service"
	"nodeagent/xray/state"
)

// errNotNarrowed says what follows where who was let in last is not known.
var errNotNarrowed = errors.New("the newest configuration in the state file was damaged, and who was let in last is not known: clients that were removed lately may be let in until Core sends its configuration")

// fingerprint identifies a client on an inbound together with its credential, in 8 bytes. It
// compares clients of the store's own documents, so that it need not resist anybody.
func fingerprint(tag, id, credential string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(tag + "\x00" + id + "\x00" + credential))
	return h.Sum64()
}

// xrayFingerprint is the fingerprint of a client of Xray: its email stands for its key and its
// account. An account that belongs to no client has none.
func xrayFingerprint(tag string, c *state.Client) uint64 {
	if c.Email == "" {
		return fingerprint(tag, "", string(c.Account))
	}
	return fingerprint(tag, c.Email, "")
}

func appendPrint(all []byte, print uint64) []byte { return binary.BigEndian.AppendUint64(all, print) }

// admitted returns the fingerprints of all clients that d lets in, for store.History.
func (d *desired) admitted() ([]byte, error) {
	all := make([]byte, 0, 8*d.clients())
	add := func(print uint64) { all = appendPrint(all, print) }
	for _, tag := range d.xray.Tags() {
		in := d.xray.Inbounds[tag]
		if state.Protocols[in.Protocol].AccountsAt() == "" {
			for i := range in.Clients {
				add(xrayFingerprint(tag, in.Clients[i]))
			}
			continue
		}
		if _, err := in.Without(func(c *state.Client) bool { add(xrayFingerprint(tag, c)); return false }); err != nil {
			return nil, err
		}
	}
	for _, in := range d.mtproto.Inbounds {
		for _, c := range in.Clients {
			add(fingerprint(in.Tag, c.ID, c.Secret))
		}
	}
	return all, nil
}

// narrow removes the clients of d whose fingerprints are not in admitted: a document that came
// after d and is damaged may have removed them.
func (d *desired) narrow(admitted []byte) (err error) {
	if admitted == nil {
		return errNotNarrowed
	}
	in := make(map[uint64]bool, len(admitted)/8)
	for print := range slices.Chunk(admitted, 8) {
		if len(print) == 8 {
			in[binary.BigEndian.Uint64(print)] = true
		}
	}
	for tag, inbound := range d.xray.Inbounds {
		if d.xray.Inbounds[tag], err = inbound.Without(func(c *state.Client) bool { return !in[xrayFingerprint(tag, c)] }); err != nil {
			return err
		}
	}
	for i := range d.mtproto.Inbounds {
		inbound := &d.mtproto.Inbounds[i]
		inbound.Clients = slices.DeleteFunc(inbound.Clients, func(c service.Client) bool { return !in[fingerprint(inbound.Tag, c.ID, c.Secret)] })
	}
	return nil
}

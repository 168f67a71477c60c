package agent

import (
	"encoding/binary"
	"math"
	"net/netip"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/grant"
	"nodeagent/xray/state"
)

// The flags of a client.
const (
	flagTied = 1 << iota
	flagNoSecret
	flagPrivateKey
	flagVision
	flagOddCase
	flagGranted
	flagPanel
	flagSettled
	flagNameIsKey
	flagLimits
	flagAddresses
)

// parsedWriter writes the client map and the clients.
type parsedWriter struct {
	numbers, texts, accounts []byte
	places                   map[string]int // of the keys in the client map
}

func (w *parsedWriter) number(n uint64) { w.numbers = binary.AppendUvarint(w.numbers, n) }

func (w *parsedWriter) signed(n int64) { w.numbers = binary.AppendVarint(w.numbers, n) }

func (w *parsedWriter) text(s string) {
	w.number(uint64(len(s)))
	w.texts = append(w.texts, s...)
}

func (w *parsedWriter) entry(key string, ref wire.ClientRef) {
	w.places[key] = len(w.places)
	w.text(key)
	w.signed(ref.UserID)
	if ref.SubscriptionID == nil {
		w.number(0)
		return
	}
	w.number(1)
	w.signed(*ref.SubscriptionID)
}

func flagsOf(c *state.Client) (flags uint64) {
	for _, f := range []struct {
		is   bool
		flag uint64
	}{
		{c.Tied, flagTied},
		{c.Reading.NoSecret, flagNoSecret},
		{c.Reading.PrivateKey, flagPrivateKey},
		{c.Reading.Vision, flagVision},
		{c.Reading.OddCase, flagOddCase},
		{c.Reading.Granted, flagGranted},
		{c.Reading.Panel, flagPanel},
		{c.Reading.Settled, flagSettled},
		{c.Name == c.Key, flagNameIsKey},
		{c.Limits != state.Limits{}, flagLimits},
		{c.Addresses != nil, flagAddresses},
	} {
		if f.is {
			flags |= f.flag
		}
	}
	return flags
}

func (w *parsedWriter) client(c *state.Client) {
	flags := flagsOf(c)
	w.number(flags)
	if place, known := w.places[c.Key]; known { // the client has the text of the client map's key
		w.number(uint64(place) + 1)
	} else {
		w.number(0)
		w.text(c.Key)
	}
	if flags&flagNameIsKey == 0 {
		w.text(c.Name)
	}
	w.text(c.Email)
	w.text(c.Group)
	w.text(c.User)
	w.number(uint64(c.Reading.Index))
	w.number(uint64(c.Slot))
	for _, hash := range []uint64{c.Reading.Shape, c.Reading.SecretHash, c.Reading.UUIDHash} {
		w.numbers = binary.LittleEndian.AppendUint64(w.numbers, hash)
	}
	if flags&flagLimits != 0 {
		w.signed(int64(c.Limits.IPs))
		w.signed(int64(c.Limits.Connections))
		w.signed(c.Limits.RateUpBitsPerSecond)
		w.signed(c.Limits.RateDownBitsPerSecond)
	}
	if flags&flagAddresses != 0 {
		w.number(uint64(len(c.Addresses)))
		for _, prefix := range c.Addresses {
			w.text(prefix.String())
		}
	}
	w.number(uint64(len(c.Account)))
	w.accounts = append(w.accounts, c.Account...)
}

// parsedReader reads what parsedWriter has written. After an error it returns zeros.
type parsedReader struct {
	numbers  []byte
	texts    string
	accounts []byte
	failed   bool
}

func (r *parsedReader) number() uint64 {
	n, size := binary.Uvarint(r.numbers)
	if size <= 0 {
		r.failed = true
		return 0
	}
	r.numbers = r.numbers[size:]
	return n
}

func (r *parsedReader) signed() int64 {
	n, size := binary.Varint(r.numbers)
	if size <= 0 {
		r.failed = true
		return 0
	}
	r.numbers = r.numbers[size:]
	return n
}

func (r *parsedReader) hash() uint64 {
	if len(r.numbers) < 8 {
		r.failed = true
		return 0
	}
	n := binary.LittleEndian.Uint64(r.numbers)
	r.numbers = r.numbers[8:]
	return n
}

func (r *parsedReader) text() string {
	n := r.number()
	if n > uint64(len(r.texts)) {
		r.failed = true
		return ""
	}
	text := r.texts[:n]
	r.texts = r.texts[n:]
	return text
}

func (r *parsedReader) account() []byte {
	n := r.number()
	if n > uint64(len(r.accounts)) {
		r.failed = true
		return nil
	}
	account := r.accounts[:n:n]
	r.accounts = r.accounts[n:]
	return account
}

// readClientMap reads the client map, and returns its keys in their order.
func (d *desired) readClientMap(r *parsedReader, entries int) (keys []string) {
	entries = min(entries, len(r.numbers)) // what is damaged costs no memory
	refs := make(map[string]wire.ClientRef, entries)
	subscriptions := make([]int64, entries)
	keys = make([]string, entries)
	for i := range entries {
		keys[i] = r.text()
		ref := wire.ClientRef{UserID: r.signed()}
		if r.number() == 1 {
			subscriptions[i] = r.signed()
			ref.SubscriptionID = &subscriptions[i]
		}
		refs[keys[i]] = ref
	}
	d.clientMap = newClientMap(refs)
	d.mtprotoClients = d.clientMap
	return keys
}

// clients reads so many clients of one inbound.
func (r *parsedReader) clients(n int, keys []string, grants map[string]*grant.Grant) (state.Clients, error) {
	if n < 0 || n > len(r.numbers) {
		return nil, errParsed
	}
	all, clients := make([]state.Client, n), make(state.Clients, n)
	for i := range all {
		clients[i] = &all[i]
		r.client(clients[i], keys)
		if r.failed {
			return nil, errParsed
		}
		if len(grants) > 0 {
			all[i].Grant = grants[all[i].Key]
		}
	}
	return clients, nil
}

func (r *parsedReader) client(c *state.Client, keys []string) {
	flags := r.number()
	switch place := r.number(); {
	case place == 0:
		c.Key = r.text()
	case place > uint64(len(keys)):
		r.failed = true
		return
	default:
		c.Key = keys[place-1]
	}
	c.Name = c.Key
	if flags&flagNameIsKey == 0 {
		c.Name = r.text()
	}
	c.Tied = flags&flagTied != 0
	c.Email, c.Group, c.User = r.text(), r.text(), r.text()
	c.Reading = state.Reading{
		NoSecret: flags&flagNoSecret != 0, PrivateKey: flags&flagPrivateKey != 0, Vision: flags&flagVision != 0, OddCase: flags&flagOddCase != 0,
		Granted: flags&flagGranted != 0, Panel: flags&flagPanel != 0, Settled: flags&flagSettled != 0,
		Index: int(min(r.number(), math.MaxInt32)),
	}
	c.Slot = uint32(min(r.number(), math.MaxUint32)) // assignAgainLocked checks it
	c.Reading.Shape, c.Reading.SecretHash, c.Reading.UUIDHash = r.hash(), r.hash(), r.hash()
	if flags&flagLimits != 0 {
		c.Limits = state.Limits{IPs: int(r.signed()), Connections: int(r.signed()), RateUpBitsPerSecond: r.signed(), RateDownBitsPerSecond: r.signed()}
	}
	if flags&flagAddresses != 0 {
		c.Addresses = []netip.Prefix{}
		for n := r.number(); n > 0 && !r.failed; n-- {
			prefix, err := netip.ParsePrefix(r.text())
			r.failed = r.failed || err != nil
			c.Addresses = append(c.Addresses, prefix)
		}
	}
	c.Account = r.account()
}

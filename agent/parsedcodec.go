package agent

import (
	"bytes"
	"encoding/binary"
	"math"
	"net/netip"
	"strings"
	"unsafe"

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
	flagKeyInAccount
	flagEmailInAccount
)

// parsedWriter writes the client map and the clients.
type parsedWriter struct {
	numbers, keys, texts, accounts []byte
	places                         map[string]int // of the keys in the client map
}

func (w *parsedWriter) number(n uint64) { w.numbers = binary.AppendUvarint(w.numbers, n) }

func (w *parsedWriter) signed(n int64) { w.numbers = binary.AppendVarint(w.numbers, n) }

func (w *parsedWriter) text(s string) {
	w.number(uint64(len(s)))
	w.texts = append(w.texts, s...)
}

func (w *parsedWriter) entry(key string, ref wire.ClientRef) {
	w.places[key] = len(w.places)
	w.number(uint64(len(key)))
	w.keys = append(w.keys, key...)
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
	key, email := bytes.Index(c.Account, []byte(c.Key)), bytes.Index(c.Account, []byte(c.Email))
	if key >= 0 {
		flags |= flagKeyInAccount
	}
	if email >= 0 {
		flags |= flagEmailInAccount
	}
	w.number(flags)
	w.number(uint64(len(c.Account)))
	w.accounts = append(w.accounts, c.Account...)
	place, known := w.places[c.Key]
	if known {
		w.number(uint64(place) + 1)
	} else {
		w.number(0)
	}
	switch {
	case key >= 0:
		w.number(uint64(key))
		w.number(uint64(len(c.Key)))
	case !known:
		w.text(c.Key)
	}
	if flags&flagNameIsKey == 0 {
		w.text(c.Name)
	}
	if email >= 0 {
		w.number(uint64(email))
		w.number(uint64(len(c.Email)))
	} else {
		w.text(c.Email)
	}
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
}

// parsedReader reads what parsedWriter has written. After an error it returns zeros.
type parsedReader struct {
	numbers  []byte
	keys     string // of the client map
	texts    string
	accounts string
	failed   bool

	entries []mapEntry
}

// mapEntry is an entry of the client map. Until a client or the map takes the key, it is a part of
// parsedReader.keys, which nothing is to keep.
type mapEntry struct {
	key   string
	taken bool
	ref   wire.ClientRef
}

// take returns the key with its own text, which is within the account of a client where it can be.
func (e *mapEntry) take(within string) string {
	if !e.taken {
		if within == "" {
			within = strings.Clone(e.key)
		}
		e.key, e.taken = within, true
	}
	return e.key
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

func (r *parsedReader) text() string { return r.cut(&r.texts) }

// cut takes a text from the front of those that are left.
func (r *parsedReader) cut(left *string) (text string) {
	n := r.number()
	if n > uint64(len(*left)) {
		r.failed = true
		return ""
	}
	text, *left = (*left)[:n], (*left)[n:]
	return text
}

// within reads a text that is a part of an account.
func (r *parsedReader) within(account string) string {
	at, n := r.number(), r.number()
	if at > uint64(len(account)) || n > uint64(len(account))-at {
		r.failed = true
		return ""
	}
	return account[at : at+n]
}

// readEntries reads the client map.
func (r *parsedReader) readEntries(n int) {
	n = max(0, min(n, len(r.numbers))) // what is damaged costs no memory
	subscriptions := make([]int64, n)
	r.entries = make([]mapEntry, n)
	for i := range r.entries {
		e := &r.entries[i]
		e.key = r.cut(&r.keys)
		e.ref.UserID = r.signed()
		if r.number() == 1 {
			subscriptions[i] = r.signed()
			e.ref.SubscriptionID = &subscriptions[i]
		}
	}
}

// clientMap makes the client map, once the clients are read.
func (r *parsedReader) clientMap() clientMap {
	refs := make(map[string]wire.ClientRef, len(r.entries))
	for i := range r.entries {
		refs[r.entries[i].take("")] = r.entries[i].ref
	}
	return newClientMap(refs)
}

// clients reads so many clients of one inbound.
func (r *parsedReader) clients(n int, grants map[string]*grant.Grant) (state.Clients, error) {
	if n < 0 || n > len(r.numbers) {
		return nil, errParsed
	}
	all, clients := make([]state.Client, n), make(state.Clients, n)
	for i := range all {
		clients[i] = &all[i]
		r.client(clients[i])
		if r.failed {
			return nil, errParsed
		}
		if len(grants) > 0 {
			all[i].Grant = grants[all[i].Key]
		}
	}
	return clients, nil
}

func (r *parsedReader) client(c *state.Client) {
	flags := r.number()
	account := r.cut(&r.accounts)
	c.Account = unsafe.Slice(unsafe.StringData(account), len(account)) // nobody writes to an account
	place, inAccount := r.number(), ""
	if flags&flagKeyInAccount != 0 {
		inAccount = r.within(account)
	}
	switch {
	case place > uint64(len(r.entries)):
		r.failed = true
		return
	case place > 0:
		c.Key = r.entries[place-1].take(inAccount)
	case flags&flagKeyInAccount != 0:
		c.Key = inAccount
	default:
		c.Key = r.text()
	}
	c.Name = c.Key
	if flags&flagNameIsKey == 0 {
		c.Name = r.text()
	}
	c.Tied = flags&flagTied != 0
	if flags&flagEmailInAccount != 0 {
		c.Email = r.within(account)
	} else {
		c.Email = r.text()
	}
	c.Group, c.User = r.text(), r.text()
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
}

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
	"nodeagent/internal/varint"
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
	varint.Writer
	keys, accounts []byte
	places         map[string]int // of the keys in the client map
}

func (w *parsedWriter) entry(key string, ref wire.ClientRef) {
	w.places[key] = len(w.places)
	w.Number(uint64(len(key)))
	w.keys = append(w.keys, key...)
	w.Signed(ref.UserID)
	if ref.SubscriptionID == nil {
		w.Number(0)
		return
	}
	w.Number(1)
	w.Signed(*ref.SubscriptionID)
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
	w.Number(flags)
	w.Number(uint64(len(c.Account)))
	w.accounts = append(w.accounts, c.Account...)
	place, known := w.places[c.Key]
	if known {
		w.Number(uint64(place) + 1)
	} else {
		w.Number(0)
	}
	switch {
	case key >= 0:
		w.Number(uint64(key))
		w.Number(uint64(len(c.Key)))
	case !known:
		w.Text(c.Key)
	}
	if flags&flagNameIsKey == 0 {
		w.Text(c.Name)
	}
	if email >= 0 {
		w.Number(uint64(email))
		w.Number(uint64(len(c.Email)))
	} else {
		w.Text(c.Email)
	}
	w.Text(c.Group)
	w.Text(c.User)
	w.Number(uint64(c.Reading.Index))
	w.Number(uint64(c.Slot))
	for _, hash := range []uint64{c.Reading.Shape, c.Reading.SecretHash, c.Reading.UUIDHash} {
		w.Numbers = binary.LittleEndian.AppendUint64(w.Numbers, hash)
	}
	if flags&flagLimits != 0 {
		w.Signed(int64(c.Limits.IPs))
		w.Signed(int64(c.Limits.Connections))
		w.Signed(c.Limits.RateUpBitsPerSecond)
		w.Signed(c.Limits.RateDownBitsPerSecond)
	}
	if flags&flagAddresses != 0 {
		w.Number(uint64(len(c.Addresses)))
		for _, prefix := range c.Addresses {
			w.Text(prefix.String())
		}
	}
}

// parsedReader reads what parsedWriter has written.
type parsedReader struct {
	varint.Reader
	keys     string // of the client map
	accounts string

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

func (r *parsedReader) hash() uint64 {
	if len(r.Numbers) < 8 {
		r.Failed = true
		return 0
	}
	n := binary.LittleEndian.Uint64(r.Numbers)
	r.Numbers = r.Numbers[8:]
	return n
}

// within reads a text that is a part of an account.
func (r *parsedReader) within(account string) string {
	at, n := r.Number(), r.Number()
	if at > uint64(len(account)) || n > uint64(len(account))-at {
		r.Failed = true
		return ""
	}
	return account[at : at+n]
}

// readEntries reads the client map.
func (r *parsedReader) readEntries(n int) {
	n = max(0, min(n, len(r.Numbers))) // what is damaged costs no memory
	subscriptions := make([]int64, n)
	r.entries = make([]mapEntry, n)
	for i := range r.entries {
		e := &r.entries[i]
		e.key = varint.Cut(&r.Reader, &r.keys)
		e.ref.UserID = r.Signed()
		if r.Number() == 1 {
			subscriptions[i] = r.Signed()
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
	if n < 0 || n > len(r.Numbers) {
		return nil, errParsed
	}
	all, clients := make([]state.Client, n), make(state.Clients, n)
	for i := range all {
		clients[i] = &all[i]
		r.client(clients[i])
		if r.Failed {
			return nil, errParsed
		}
		if len(grants) > 0 {
			all[i].Grant = grants[all[i].Key]
		}
	}
	return clients, nil
}

func (r *parsedReader) client(c *state.Client) {
	flags := r.Number()
	account := varint.Cut(&r.Reader, &r.accounts)
	c.Account = unsafe.Slice(unsafe.StringData(account), len(account)) // nobody writes to an account
	place, inAccount := r.Number(), ""
	if flags&flagKeyInAccount != 0 {
		inAccount = r.within(account)
	}
	switch {
	case place > uint64(len(r.entries)):
		r.Failed = true
		return
	case place > 0:
		c.Key = r.entries[place-1].take(inAccount)
	case flags&flagKeyInAccount != 0:
		c.Key = inAccount
	default:
		c.Key = r.Text()
	}
	c.Name = c.Key
	if flags&flagNameIsKey == 0 {
		c.Name = r.Text()
	}
	c.Tied = flags&flagTied != 0
	if flags&flagEmailInAccount != 0 {
		c.Email = r.within(account)
	} else {
		c.Email = r.Text()
	}
	c.Group, c.User = r.Text(), r.Text()
	c.Reading = state.Reading{
		NoSecret: flags&flagNoSecret != 0, PrivateKey: flags&flagPrivateKey != 0, Vision: flags&flagVision != 0, OddCase: flags&flagOddCase != 0,
		Granted: flags&flagGranted != 0, Panel: flags&flagPanel != 0, Settled: flags&flagSettled != 0,
		Index: int(min(r.Number(), math.MaxInt32)),
	}
	c.Slot = uint32(min(r.Number(), math.MaxUint32)) // assignAgainLocked checks it
	c.Reading.Shape, c.Reading.SecretHash, c.Reading.UUIDHash = r.hash(), r.hash(), r.hash()
	if flags&flagLimits != 0 {
		c.Limits = state.Limits{IPs: int(r.Signed()), Connections: int(r.Signed()), RateUpBitsPerSecond: r.Signed(), RateDownBitsPerSecond: r.Signed()}
	}
	if flags&flagAddresses != 0 {
		c.Addresses = []netip.Prefix{}
		for n := r.Number(); n > 0 && !r.Failed; n-- {
			prefix, err := netip.ParsePrefix(r.Text())
			r.Failed = r.Failed || err != nil
			c.Addresses = append(c.Addresses, prefix)
		}
	}
}

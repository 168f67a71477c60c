package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"

	"nodeagent/internal/grant"
	"nodeagent/internal/logkey"
	"nodeagent/internal/varint"
	"nodeagent/store"
	"nodeagent/telemt/service"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// The parsed form of a document is what parseConfig makes of it, in a form that is read fast: a document
// with 100,000 clients takes most of the time of a start to be parsed. The store keeps it beside the
// document, and gives it only to the build that wrote it. It has these parts, each behind its length:
//
//	head       parsedHead, JSON: all but clients and the client map
//	numbers    the client map and the clients: numbers of package binary, and the lengths of their texts
//	keys       the keys of the client map, one after the other
//	accounts   the accounts, one after the other
//	texts      keys, names, emails and groups that are in no account, one after the other
//
// So the texts of the clients are parts of two blocks of memory, and most keys and emails are parts of
// the accounts. A block lives while one client of it does, or an owner in the store, which has the key of
// a client. So the last client of a start keeps the accounts of all: 10 MB for 100,000 clients of VLESS.
// It does not add up, since a daemon reads one parsed form, at its start. Accounts and keys of their own
// would take that memory, and more, from the start on.
type parsedHead struct {
	Revision  int64                   `json:"revision"`
	Hash      []byte                  `json:"hash"` // of the document's text, see syncState
	Entries   int                     `json:"entries"`
	Inbounds  []parsedInbound         `json:"inbounds"`
	Outbounds []state.Outbound        `json:"outbounds"`
	Routing   json.RawMessage         `json:"routing"`
	DNS       json.RawMessage         `json:"dns"`
	Policy    json.RawMessage         `json:"policy"`
	Base      state.Base              `json:"base"`
	MTProto   *service.Service        `json:"mtproto"`
	Grants    map[string]*grant.Grant `json:"grants"` // by key
}

// parsedInbound is an inbound of Xray. The members are those of state.Inbound.
type parsedInbound struct {
	state.Inbound
	NodeProtocolID int64  `json:"nodeProtocolId"`
	VPNProtocol    string `json:"vpnProtocol"`
	Clients        int    `json:"clients"`
}

var errParsed = errors.New("the parsed configuration can't be read")

// parsedForm returns the parsed form of d, a whole document with the hash. ok is false for one that
// does not come back as it was.
func (d *desired) parsedForm(hash []byte) (data []byte, ok bool) {
	if len(d.mtproto.Advanced) > 0 || len(d.unreadable) > 0 || d.mtprotoRefused || d.clientMap.missing() {
		return nil, false // the kinds of free numbers are lost in JSON
	}
	head := parsedHead{
		Revision: d.revision, Hash: hash, Entries: d.clientMap.length, Routing: d.routing,
		DNS: d.xray.DNS, Policy: d.xray.Policy, Base: d.xray.Base, Grants: map[string]*grant.Grant{},
	}
	for _, out := range d.xray.Outbounds {
		out.Slot = 0
		head.Outbounds = append(head.Outbounds, out)
	}
	if len(d.mtproto.Inbounds)+len(d.mtproto.Upstreams) > 0 {
		head.MTProto = &d.mtproto
	}
	note := func(key string, g *grant.Grant) {
		if g != nil {
			head.Grants[key] = &grant.Grant{ID: g.ID, Bytes: g.Bytes, ExpiresAt: g.ExpiresAt}
		}
	}
	for _, in := range d.mtproto.Inbounds {
		if in.Options != nil {
			return nil, false
		}
		for _, c := range in.Clients {
			note(c.ID, c.Grant)
		}
	}
	w := parsedWriter{places: make(map[string]int, d.clientMap.length)}
	for key := range d.clientMap.keys() {
		ref, _ := d.clientMap.find(key)
		w.entry(key, ref)
	}
	for _, tag := range d.xray.Tags() {
		in := d.xray.Inbounds[tag]
		head.Inbounds = append(head.Inbounds, parsedInbound{in, in.NodeProtocolID, in.VPNProtocol, len(in.Clients)})
		for _, c := range in.Clients {
			note(c.Key, c.Grant)
			w.client(c)
		}
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // objects of Xray come back as they are
	if err := encoder.Encode(head); err != nil {
		return nil, false
	}
	data = make([]byte, 0, text.Len()+len(w.Numbers)+len(w.keys)+len(w.Texts)+len(w.accounts)+5*binary.MaxVarintLen64)
	for _, part := range [][]byte{text.Bytes(), w.Numbers, w.keys, w.accounts, w.Texts} {
		data = append(binary.AppendUvarint(data, uint64(len(part))), part...)
	}
	return data, true
}

// readParsed reads a parsed form, and keeps nothing of data. hash is that of the document's text.
func readParsed(data []byte) (d desired, hash []byte, err error) {
	var parts [5][]byte
	for i := range parts {
		n, size := binary.Uvarint(data)
		if size <= 0 || n > uint64(len(data)-size) {
			return d, nil, errParsed
		}
		parts[i], data = data[size:size+int(n)], data[size+int(n):]
	}
	var head parsedHead
	if err := json.Unmarshal(parts[0], &head); err != nil {
		return d, nil, errors.Join(errParsed, err)
	}
	r := &parsedReader{Reader: varint.Reader{Numbers: parts[1], Texts: string(parts[4])}, keys: string(parts[2]), accounts: string(parts[3])}
	d.revision, d.routing = head.Revision, nullable(head.Routing)
	d.xray = state.State{Inbounds: make(map[string]state.Inbound, len(head.Inbounds)), Outbounds: head.Outbounds, DNS: nullable(head.DNS), Policy: nullable(head.Policy), Base: head.Base}
	r.readEntries(head.Entries)
	for _, in := range head.Inbounds {
		in.Inbound.NodeProtocolID, in.Inbound.VPNProtocol = in.NodeProtocolID, in.VPNProtocol
		if in.Inbound.Clients, err = r.clients(in.Clients, head.Grants); err != nil {
			return d, nil, err
		}
		d.xray.Inbounds[in.Tag] = in.Decoded()
	}
	if r.Failed {
		return d, nil, errParsed
	}
	d.clientMap = r.clientMap()
	d.mtprotoClients = d.clientMap
	if d.xray, err = parse.WithUsers(d.xray, d.routing); err != nil {
		return d, nil, errors.Join(errParsed, err)
	}
	if head.MTProto == nil {
		return d, head.Hash, nil
	}
	text, err := json.Marshal(head.MTProto)
	read := service.Parts(text)
	if err != nil || len(read.Refused) > 0 {
		return d, nil, errors.Join(errParsed, err)
	}
	d.mtproto = read.Service
	for _, in := range d.mtproto.Inbounds {
		for i := range in.Clients {
			in.Clients[i].Grant = head.Grants[in.Clients[i].ID]
		}
	}
	return d, head.Hash, nil
}

// nullable returns nil for JSON's null.
func nullable(raw json.RawMessage) json.RawMessage {
	if string(raw) == "null" {
		return nil
	}
	return raw
}

// Ahead is the parsed form that the state folder has, while it is read and afterwards.
type Ahead struct {
	read chan struct{} // closed once the rest is set
	key  store.ParsedKey
	kept keptDocument
	err  error // set where nothing was read, also where the folder has no parsed form of this build
}

// ReadAhead begins to read the parsed form in the state folder dir: with another processor, while the
// store is opened, which says only then whether it is of the current configuration. build returns
// Deps.Build: the form of another build is not read, as its numbers may stand for other things. It is
// called beside the caller, since ipc.Build reads the whole program.
func ReadAhead(dir string, build func() string) *Ahead {
	a := &Ahead{read: make(chan struct{})}
	go func() {
		defer close(a.read)
		if !store.ReadParsed(dir, build(), func(key store.ParsedKey, data []byte) {
			a.key, a.kept.parsed = key, key
			a.kept.desired, a.kept.hash, a.err = readWith(readParsed, data)
		}) {
			a.err = errParsed
		}
	}()
	return a
}

// readWith reads a parsed form. A panic is an error: the daemon can parse the document, and a goroutine
// that panics would end it at each start.
func readWith(read func([]byte) (desired, []byte, error), data []byte) (d desired, hash [sha256.Size]byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			d, err = desired{}, fmt.Errorf("%w: panic: %v\n%s", errParsed, p, debug.Stack())
		}
	}()
	d, text, err := read(data)
	if err == nil && copy(hash[:], text) != sha256.Size {
		err = errParsed
	}
	return d, hash, err
}

// keptParsed returns the result that parseKept would have for the history, where the state folder has it
// parsed already.
func (a *Agent) keptParsed(h store.History, ahead *Ahead) (kept keptDocument, ok bool) {
	if a.build == "" || ahead == nil || !plain(h) {
		return kept, false
	}
	<-ahead.read
	if ahead.key != store.ParsedKeyOf(a.build, h.Current.Body) {
		return kept, false
	}
	err := ahead.err
	if err == nil && ahead.kept.revision != h.Current.Revision {
		err = errParsed
	}
	if err != nil {
		a.log.Warn("read the parsed form of the configuration; it is parsed again", logkey.Error, err)
		return kept, false
	}
	return ahead.kept, true
}

// plain reports whether the current configuration of the history runs as its document says.
func plain(h store.History) bool {
	return h.Current != nil && len(h.Changes) == 0 && h.GivenUp == nil && h.Pending == nil && !h.Unconfirmed && !h.Narrow
}

// manyClients is how many clients a configuration has at least that takes long to be parsed.
const manyClients = 1000

func (a *Agent) keepParsed() {
	a.applying.Lock()
	defer a.applying.Unlock()
	a.keepParsedLocked()
}

// keepParsedLocked keeps the parsed form of what runs, if that is the current configuration as a whole.
func (a *Agent) keepParsedLocked() {
	if a.build == "" || a.running.clients() < a.parsedFrom || a.sync.refusedConfig() != nil {
		return
	}
	h, err := a.store.History()
	etag, hash := a.sync.runningConfig()
	if err != nil || !plain(h) || h.Current.Revision != a.running.revision || h.Current.ETag != etag {
		return
	}
	key := store.ParsedKeyOf(a.build, h.Current.Body)
	if a.parsed == key {
		return
	}
	data, ok := a.running.parsedForm(hash[:])
	if !ok {
		return
	}
	if err := a.store.SetParsed(key, data); err != nil {
		a.log.Warn("keep the parsed form of the configuration; the next start parses it", logkey.Error, err)
		return
	}
	a.parsed = key
}

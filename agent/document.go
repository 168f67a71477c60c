package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"nodeagent/coreclient/wire/delta"
	"nodeagent/internal/logkey"
	"nodeagent/store"
)

// settled returns the history without changes: the configurations have them in their documents.
// body is the document of the current configuration; nil for none. Without pack, the history's own
// documents stay as they are: it is not to be stored.
func settled(h store.History, pack bool) (_ store.History, body []byte, err error) {
	if h.Current == nil {
		return h, nil, nil
	}
	if body, err = h.Current.Body.Unpack(); err != nil || len(h.Changes) == 0 {
		return h, body, err
	}
	document, err := delta.Read(body)
	if err != nil {
		return h, nil, err
	}
	previous := previousAfter(h)
	for i, c := range h.Changes {
		if i == previous && pack {
			if h.Previous, err = packed(document, c.BaseRevision, c.Base); err != nil {
				return h, nil, err
			}
		}
		if err := change(document, c.Delta); err != nil {
			return h, nil, fmt.Errorf("change revision %d to %d: %w", c.BaseRevision, c.Revision, err)
		}
	}
	if previous == noPrevious {
		h.Previous = nil
	}
	last := h.Changes[len(h.Changes)-1]
	if err := checkDigest(document, last.Delta); err != nil {
		return h, nil, err
	}
	if body, err = document.JSON(); err != nil {
		return h, nil, err
	}
	current := store.Config{Revision: last.Revision, ETag: last.ETag, Body: h.Current.Body}
	if h.Unconfirmed {
		current.ETag = ""
	}
	if pack {
		current.Body, err = store.Pack(body)
	}
	h.Current, h.Changes = &current, nil
	return h, body, err
}

// settleStore stores the configuration as a whole where the store has changes of it, so that the next
// start need not apply them, and an earlier version can read the file.
func (a *Agent) settleStore(now time.Time) {
	a.applying.Lock()
	defer a.applying.Unlock()
	if err := SettleStore(a.store, now, a.counters); err != nil {
		a.log.Warn("the changes of the configuration are kept beside it", logkey.Error, err)
	}
}

// SettleStore stores the configuration as a whole where the store has changes of it. Nothing else may
// write to the store. counters may be nil: then nothing is read from them first.
func SettleStore(db Store, now time.Time, counters store.Counters) error {
	history, err := db.History()
	if err != nil || len(history.Changes) == 0 {
		return nil //nolint:nilerr // what reads the history next says what is wrong
	}
	if history, _, err = settled(history, true); err == nil {
		err = db.Commit(now, counters, history, nil)
	}
	if err != nil {
		return fmt.Errorf("store the configuration as a whole: %w", err)
	}
	return nil
}

const (
	samePrevious = -1
	noPrevious   = -2
)

// previousAfter returns which configuration is the previous one after all changes: the one before
// the change with that number, or one of the constants above.
func previousAfter(h store.History) int {
	if h.Current == nil {
		return samePrevious
	}
	// The history tells, with the number in the place of the body.
	short := store.History{Current: &store.Config{Revision: h.Current.Revision, Body: store.Packed("0")}}
	if h.Previous != nil {
		short.Previous = &store.Config{Revision: h.Previous.Revision}
	}
	for i, c := range h.Changes {
		short = short.Applied(store.Config{Revision: c.Revision, Body: strconv.AppendInt(nil, int64(i+1), 10)}, c.Proved)
	}
	switch {
	case short.Previous == nil && h.Previous != nil:
		return noPrevious
	case short.Previous == nil || short.Previous.Body == nil:
		return samePrevious
	}
	n, err := strconv.Atoi(string(short.Previous.Body))
	if err != nil {
		return samePrevious
	}
	return n
}

func packed(document *delta.Document, revision int64, etag string) (*store.Config, error) {
	body, err := document.JSON()
	if err != nil {
		return nil, err
	}
	p, err := store.Pack(body)
	if err != nil {
		return nil, err
	}
	return &store.Config{Revision: revision, ETag: etag, Body: p}, nil
}

// change applies a delta of clients and of clientMap, which was checked when it came, to a
// document in place.
func change(document *delta.Document, raw []byte) error {
	d, err := delta.Decode(raw)
	if err != nil {
		return err
	}
	document.Revision = d.Revision
	changeMap(document.ClientMap, d.ClientMap)
	for name, changed := range d.Services {
		for _, in := range changed.Inbounds {
			service := document.Services[name]
			if service == nil || service.Inbounds[in.Tag] == nil {
				return errors.New("it has no such inbound")
			}
			clients, err := keyed(in.Clients)
			if err != nil {
				return err
			}
			changeMap(service.Inbounds[in.Tag].Clients, clients)
		}
	}
	return nil
}

func changeMap(elements map[string]json.RawMessage, m delta.Map) {
	for _, key := range m.Removed {
		delete(elements, key)
	}
	maps.Copy(elements, m.Added)
	maps.Copy(elements, m.Changed)
}

// checkDigest checks that a document is the one to which the delta led.
func checkDigest(document *delta.Document, raw []byte) error {
	d, err := delta.Decode(raw)
	if err != nil {
		return err
	}
	if sum := document.Digest(); sum != d.Digest {
		return fmt.Errorf("%w: the stored changes lead to the digest %s, want %s", delta.ErrMismatch, sum, d.Digest)
	}
	return nil
}

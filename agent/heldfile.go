package agent

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"nodeagent/coreclient/wire/delta"
	"nodeagent/internal/logkey"
	"nodeagent/store"
)

// heldHead is the head of the file that has the hashes of held: all but the hashes.
type heldHead struct {
	// Document is the hash of the stored configuration, as it is packed, and ETag that of the configuration
	// to which the hashes belong: the stored one, or one to which its changes lead.
	Document []byte       `json:"document"`
	ETag     string       `json:"etag"`
	Revision int64        `json:"revision"`
	Digest   delta.Digest `json:"digest"`
	Seed     []byte       `json:"seed"`
	Records  int          `json:"records"`
	Entries  int          `json:"entries"`
	Lists    []heldList   `json:"lists"`
}

// heldList is how many clients an inbound has.
type heldList struct {
	Kind    delta.Kind `json:"kind"`
	Tag     string     `json:"tag"`
	Clients int        `json:"clients"`
}

func (h *held) head(document [sha256.Size]byte) ([]byte, error) {
	head := heldHead{
		Document: document[:], ETag: h.etag, Revision: h.revision, Digest: h.digest, Seed: h.ids.seed[:],
		Records: h.hashes.length, Entries: h.entries,
	}
	for of, n := range h.clients {
		head.Lists = append(head.Lists, heldList{of.kind, of.tag, n})
	}
	return json.Marshal(head)
}

var errHeldFile = errors.New("the kept hashes of the configuration can't be used")

// readHeld reads what keepHeldLocked has written.
func readHeld(file *store.Elements) (*held, error) {
	var head heldHead
	if err := json.Unmarshal(file.Head, &head); err != nil {
		return nil, errors.Join(errHeldFile, err)
	}
	h := &held{etag: head.ETag, revision: head.Revision, digest: head.Digest, ids: &identifier{}, entries: head.Entries, clients: make(map[clientList]int, len(head.Lists))}
	if copy(h.document[:], head.Document) != sha256.Size || copy(h.ids.seed[:], head.Seed) != len(h.ids.seed) || file.Size() != int64(head.Records)*recordSize {
		return nil, errHeldFile
	}
	for _, l := range head.Lists {
		h.clients[clientList{l.Kind, l.Tag}] = l.Clients
	}
	var sum delta.Digest
	var err error
	if h.hashes, sum, err = readTable(file, head.Records); err == nil && sum != head.Digest {
		err = fmt.Errorf("their sum is %s, want %s", sum, head.Digest)
	}
	if err != nil {
		return nil, errors.Join(errHeldFile, err)
	}
	return h, nil
}

// keptHeld returns the document with the ETag of the history as its hashes were kept; nil where they were
// not. It is the document that runs.
func (a *Agent) keptHeld(history store.History, etag string) *held {
	file := a.store.Elements()
	if file == nil {
		return nil
	}
	h, err := readHeld(file)
	if err == nil {
		err = h.follow(history, etag)
	}
	if err == nil {
		return h
	}
	if !errors.Is(err, errOtherDocument) {
		a.log.Warn("read the hashes of the configuration; they are made again", logkey.Error, err)
	}
	_ = file.Close() // it was only read
	return nil
}

var errOtherDocument = errors.New("the kept hashes are of another configuration")

// follow leads h to the document with the ETag by the changes of the history.
func (h *held) follow(history store.History, etag string) error {
	if history.Current == nil || h.document != sha256.Sum256(history.Current.Body) {
		return errOtherDocument
	}
	begin := -1
	if history.Current.ETag == h.etag {
		begin = 0
	}
	for i, c := range history.Changes {
		if c.ETag == h.etag {
			begin = i + 1
		}
	}
	if begin < 0 {
		return errOtherDocument
	}
	for _, c := range history.Changes[begin:] {
		d, err := delta.Decode(c.Delta)
		if err != nil {
			return err
		}
		s, err := h.after(d)
		if err != nil {
			return fmt.Errorf("change revision %d to %d: %w", c.BaseRevision, c.Revision, err)
		}
		s.done(d)
	}
	if h.etag != etag {
		return errOtherDocument
	}
	return nil
}

// keepHeldLocked moves the hashes of held, which were made of a stored configuration, into a file, so that
// they take no memory and the next daemon need not make them. Where that fails they stay in memory.
func (a *Agent) keepHeldLocked(document [sha256.Size]byte) {
	h := a.held
	if h.hashes.length < a.parsedFrom {
		return
	}
	var firsts []elementID
	head, err := h.head(document)
	var file *store.Elements
	if err == nil {
		file, err = a.store.SetElements(head, func(to io.Writer) (err error) {
			firsts, err = h.hashes.write(to)
			return err
		})
	}
	if err != nil {
		a.log.Warn("keep the hashes of the configuration; the next start makes them again", logkey.Error, err)
		h.document = [sha256.Size]byte{}
		return
	}
	h.hashes.close()
	h.hashes, h.document = inFile(file, h.hashes.length, firsts), document
}

// mergeHeldLocked makes the changes of held a part of its list, once there are many.
func (a *Agent) mergeHeldLocked() {
	h := a.held
	if !h.hashes.full(a.mergeFrom) {
		return
	}
	if h.document != ([sha256.Size]byte{}) {
		a.keepHeldLocked(h.document)
	}
	if len(h.hashes.changed) == 0 {
		return
	}
	hashes, err := h.hashes.inMemory()
	if err != nil {
		a.log.Warn("read the hashes of the configuration; they are made again", logkey.Error, err)
		a.letGoLocked()
		return
	}
	h.hashes.close()
	h.hashes = hashes
}

// keepHeld keeps the hashes for the next daemon, where that will find no changes beside the configuration.
func (a *Agent) keepHeld() {
	a.applying.Lock()
	defer a.applying.Unlock()
	if a.held == nil {
		return
	}
	h, err := a.store.History()
	if err != nil || !plain(h) || h.Current.ETag != a.held.etag {
		return
	}
	if document := sha256.Sum256(h.Current.Body); document != a.held.document || len(a.held.hashes.changed) > 0 {
		a.keepHeldLocked(document)
	}
}

// letGoLocked forgets the document that the node holds: the next delta needs it made again.
func (a *Agent) letGoLocked() {
	if a.held != nil {
		a.held.hashes.close()
	}
	a.held = nil
}

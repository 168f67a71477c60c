package rendered

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"nodeagent/cmd/node-core/internal/corestore"
)

// Store is what the package asks of corestore.Store.
type Store interface {
	AllClients(ctx context.Context) (clients []*corestore.Client, seq int64, err error)
	ClientChanges(ctx context.Context, since int64) (changes []corestore.ClientChange, seq int64, all bool, err error)
	Newest(ctx context.Context, nodeID int64) (revision, layout int64, err error)
	Grants(ctx context.Context, nodeID int64) (map[int64]*corestore.Grant, error)
	LayoutRows(ctx context.Context, nodeID int64) (corestore.NodeRows, error)
	NodeRows(ctx context.Context, nodeID int64) (corestore.NodeRows, error)
	NoteDocument(ctx context.Context, nodeID, revision int64, etag string) error
	Epoch() int64
}

// maxLog bounds how many changes the roster keeps. A change has some 400 bytes.
const maxLog = 1 << 16

// snapshot has all clients at one moment. It is never changed.
type snapshot struct {
	seq    int64
	groups map[int64][]*chunk // by group; the clients of all chunks are in the order of their ids
}

// grantedChunk is a chunk some of whose clients have grants.
type grantedChunk struct {
	grants []heldGrant
	chunk  *chunk
}

// heldGrant is the grant of a client in a chunk.
type heldGrant struct {
	at    int
	grant corestore.Grant
}

// with returns the snapshot of a node on which some clients have grants. All chunks without such a
// client are the same. before has what the call before returned as made, by the chunks without grants: a
// chunk with the same grants is the same, so that it is rendered once.
func (s *snapshot) with(grants map[int64]*corestore.Grant, before map[*chunk]grantedChunk) (next *snapshot, made map[*chunk]grantedChunk) {
	if len(grants) == 0 {
		return s, nil
	}
	next, made = &snapshot{seq: s.seq, groups: maps.Clone(s.groups)}, map[*chunk]grantedChunk{}
	ids := slices.Sorted(maps.Keys(grants))
	for group, chunks := range s.groups {
		of := map[int][]heldGrant{} // by the place of the chunk
		for _, id := range ids {
			if at, i, found := find(chunks, id); found {
				of[at] = append(of[at], heldGrant{i, *grants[id]})
			}
		}
		if len(of) == 0 {
			continue
		}
		next.groups[group] = slices.Clone(chunks)
		for at, held := range of {
			bare := chunks[at]
			same, has := before[bare]
			if !has || !slices.Equal(same.grants, held) {
				clients := slices.Clone(bare.clients)
				for _, g := range held {
					clients[g.at] = granted(clients[g.at], &g.grant)
				}
				same = grantedChunk{held, newChunk(clients)}
			}
			made[bare], next.groups[group][at] = same, same.chunk
		}
	}
	return next, made
}

// find returns in which chunk a client is, and at which place in it.
func find(chunks []*chunk, id int64) (at, i int, found bool) {
	at, found = slices.BinarySearchFunc(chunks, id, func(c *chunk, id int64) int { return cmp.Compare(c.clients[0].ID, id) })
	if !found {
		at-- // the chunk before has the ids up to this one's
	}
	if at < 0 {
		return 0, 0, false
	}
	i, found = slices.BinarySearchFunc(chunks[at].clients, id, func(c *corestore.Client, id int64) int { return cmp.Compare(c.ID, id) })
	return at, i, found
}

// client returns a client; nil where it is not let in.
func (s *snapshot) client(id int64) *corestore.Client {
	for _, chunks := range s.groups {
		if at, i, found := find(chunks, id); found {
			return chunks[at].clients[i]
		}
	}
	return nil
}

// granted returns the client with a grant, or without one.
func granted(client *corestore.Client, grant *corestore.Grant) *corestore.Client {
	if client == nil || client.Grant == grant {
		return client
	}
	next := *client
	next.Grant = grant
	return &next
}

// change is a client before and after; nil where it is not let in.
type change struct {
	seq           int64
	before, after *corestore.Client
}

func (c change) id() int64 {
	if c.before != nil {
		return c.before.ID
	}
	return c.after.ID
}

// roster keeps the newest snapshot, and how it came to be.
type roster struct {
	store Store

	mu    sync.Mutex // held while the database is asked, so that one asks for all that wait
	now   *snapshot  // nil before the first question
	epoch int64      // of the database that now is from
	byID  map[int64]*corestore.Client
	// log has all changes with greater numbers than logFrom, in their order.
	log     []change
	logFrom int64
}

// sync returns a snapshot that has everything that was committed before the call.
func (r *roster) sync(ctx context.Context) (*snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil || r.epoch != r.store.Epoch() {
		return r.load(ctx)
	}
	changes, seq, all, err := r.store.ClientChanges(ctx, r.now.seq)
	switch {
	case err != nil:
		return nil, err
	case all:
		return r.load(ctx)
	case len(changes) == 0:
		return r.now, nil
	}
	r.take(changes, seq)
	return r.now, nil
}

// load reads all clients.
func (r *roster) load(ctx context.Context) (*snapshot, error) {
	epoch := r.store.Epoch()
	clients, seq, err := r.store.AllClients(ctx)
	if err != nil {
		return nil, err
	}
	next := &snapshot{seq: seq, groups: map[int64][]*chunk{}}
	r.byID = make(map[int64]*corestore.Client, len(clients))
	for start, end := 0, 0; start < len(clients); start = end {
		for end = start; end < len(clients) && clients[end].GroupID == clients[start].GroupID; end++ {
			r.byID[clients[end].ID] = clients[end]
		}
		next.groups[clients[start].GroupID] = chunksOf(clients[start:end])
	}
	r.now, r.epoch, r.log, r.logFrom = next, epoch, nil, seq
	return next, nil
}

// take makes the next snapshot of changes.
func (r *roster) take(changes []corestore.ClientChange, seq int64) {
	next := &snapshot{seq: seq, groups: maps.Clone(r.now.groups)}
	gone, come := map[int64]map[int64]bool{}, map[int64][]*corestore.Client{} // by group
	for _, c := range changes {
		before := r.byID[c.ID]
		if before == nil && c.Client == nil {
			continue // it came and went since the last look
		}
		r.log = append(r.log, change{c.Seq, before, c.Client})
		if before != nil {
			if gone[before.GroupID] == nil {
				gone[before.GroupID] = map[int64]bool{}
			}
			gone[before.GroupID][before.ID] = true
		}
		if c.Client == nil {
			delete(r.byID, c.ID)
			continue
		}
		r.byID[c.ID] = c.Client
		come[c.Client.GroupID] = append(come[c.Client.GroupID], c.Client)
	}
	if over := len(r.log) - maxLog; over > 0 {
		r.logFrom = r.log[over-1].seq
		r.log = slices.Clone(r.log[over:])
	}
	groups := map[int64]bool{}
	for id := range gone {
		groups[id] = true
	}
	for id := range come {
		groups[id] = true
	}
	for id := range groups {
		next.groups[id] = edited(r.now.groups[id], gone[id], come[id])
	}
	r.now = next
}

// since returns the changes with numbers behind from, up to until; ok is false where they are not
// known any more.
func (r *roster) since(from, until int64) (changes []change, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from < r.logFrom || r.now == nil || until > r.now.seq {
		return nil, false
	}
	bySeq := func(c change, seq int64) int { return cmp.Compare(c.seq, seq) }
	start, _ := slices.BinarySearchFunc(r.log, from+1, bySeq)
	end, _ := slices.BinarySearchFunc(r.log, until+1, bySeq)
	return r.log[start:end], true // nobody changes what is in the log
}

// chunkSize is how many clients a chunk has on average.
const chunkSize = 256

// begins reports whether a chunk begins with the client of an id. It depends on the id alone, so that
// the same clients make the same chunks, in whichever order they came.
func begins(id int64) bool {
	x := uint64(id) * 0x9e3779b97f4a7c15 // Fibonacci hashing: ids are often in sequence
	return (x>>32)%chunkSize == 0
}

// chunksOf makes chunks of clients, which are in the order of their ids.
func chunksOf(clients []*corestore.Client) (all []*chunk) {
	for start := 0; start < len(clients); {
		end := start + 1
		for end < len(clients) && !begins(clients[end].ID) {
			end++
		}
		all = append(all, newChunk(clients[start:end:end]))
		start = end
	}
	return all
}

// edited returns the chunks of a group after some clients are gone and others have come. A client
// that is another one now is in both. Chunks in which nothing changed stay the same.
func edited(before []*chunk, gone map[int64]bool, come []*corestore.Client) (after []*chunk) {
	byID := func(a, b *corestore.Client) int { return cmp.Compare(a.ID, b.ID) }
	come = slices.SortedFunc(slices.Values(come), byID)
	if len(before) == 0 {
		return chunksOf(come)
	}
	back := map[int64]bool{}
	dirty := make([]bool, len(before))
	for _, c := range come {
		back[c.ID] = true
		// The chunk whose ids are around this one; the first chunk has all ids before the second.
		at, _ := slices.BinarySearchFunc(before[1:], c.ID+1, func(b *chunk, id int64) int { return cmp.Compare(b.clients[0].ID, id) })
		dirty[at] = true
	}
	for i, c := range before {
		for at, client := range c.clients {
			if !gone[client.ID] {
				continue
			}
			dirty[i] = true
			if at == 0 && i > 0 && !back[client.ID] { // what is left of the chunk follows the one before
				dirty[i-1] = true
			}
		}
	}
	for i := 0; i < len(before); {
		if !dirty[i] {
			after = append(after, before[i])
			i++
			continue
		}
		var run []*corestore.Client
		for ; i < len(before) && dirty[i]; i++ {
			for _, client := range before[i].clients {
				if !gone[client.ID] {
					run = append(run, client)
				}
			}
		}
		for len(come) > 0 && (i == len(before) || come[0].ID < before[i].clients[0].ID) {
			run, come = append(run, come[0]), come[1:]
		}
		slices.SortFunc(run, byID)
		after = append(after, chunksOf(run)...)
	}
	return after
}

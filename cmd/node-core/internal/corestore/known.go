package corestore

import (
	"crypto/sha256"
	"maps"
	"sync"
	"time"

	"nodeagent/coreclient/wire"
)

// knownFor is how long the answer to a node's quiet heartbeat is taken from memory before the database
// is asked again. No message tells an instance on PostgreSQL that another one has made the node's document.
// Until it asks, it makes that document itself, to compare.
const knownFor = 5 * time.Minute

// knownNodes has what Core answers to heartbeats that say what the node's last one said, so that such a
// heartbeat asks the database nothing: ten thousand idle nodes would ask 400 times a second. It has the
// nodes' auth keys too, by their hashes.
//
// An entry is what the database says until something is committed that a heartbeat reads: the key,
// revision, status, address, daemon and versions of a node, its document's ETag, whether it refuses
// parts, and whether inbounds have failed. Every edit (inTransaction) forgets all nodes, an edit of clients
// (inClientEdit) the answers of all, and a node's own request that stores something the answer of that node. An
// entry is read from the database and kept afterwards: moment and keep see to it that it was not forgotten
// meanwhile.
//
// On PostgreSQL other instances change the database. Their messages (Listen) forget nodes, and without
// the messages nothing is kept.
//
// mu is held while the fields are read or changed, and never while the database is asked.
type knownNodes struct {
	mu   sync.Mutex
	deaf bool  // other instances may change the database, and no message says so
	seq  int64 // raised whenever something is forgotten
	// all and allBeats are seq when all nodes were forgotten last, and all answers.
	all, allBeats int64
	nodes         map[int64]*knownNode
	keys          map[keyHash]int64 // the ids of nodes
}

type keyHash [sha256.Size]byte

// knownNode is what is known of one node.
type knownNode struct {
	key   *keyHash // nil where it is not known
	until time.Time
	// forgotten and noBeat are seq when the node was forgotten last, and its answer.
	forgotten, noBeat int64
	// beat is the answer to a heartbeat that says the same as the fields above it; nil for none.
	revision *int64
	ip       string
	from     Daemon
	beat     *Beat
}

func (k *knownNode) says(r wire.HeartbeatRequest, from Daemon) bool {
	return k.ip == r.IP && k.from == from && (k.revision == nil) == (r.Revision == nil) && (r.Revision == nil || *k.revision == *r.Revision)
}

// moment returns what keepKey and keepBeat want of the time before the database was asked.
func (k *knownNodes) moment() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seq
}

// node returns what is known of a node, to be changed; nil where it was forgotten since moment.
func (k *knownNodes) node(id, moment int64) *knownNode {
	if k.deaf || k.all > moment {
		return nil
	}
	n := k.entry(id)
	if n.forgotten > moment {
		return nil
	}
	if time.Now().After(n.until) {
		k.clear(n)
		n.until = time.Now().Add(knownFor)
	}
	return n
}

// entry returns the entry of a node, and makes it.
func (k *knownNodes) entry(id int64) *knownNode {
	n := k.nodes[id]
	if n == nil {
		n = &knownNode{until: time.Now().Add(knownFor)}
		if k.nodes == nil {
			k.nodes, k.keys = map[int64]*knownNode{}, map[keyHash]int64{}
		}
		k.nodes[id] = n
	}
	return n
}

// clear removes the key and the answer of a node.
func (k *knownNodes) clear(n *knownNode) {
	if n.key != nil {
		delete(k.keys, *n.key)
	}
	n.key, n.beat = nil, nil
}

func (k *knownNodes) keepKey(id, moment int64, hash keyHash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := k.node(id, moment); n != nil {
		if n.key != nil {
			delete(k.keys, *n.key)
		}
		n.key = &hash
		k.keys[hash] = id
	}
}

// byKey returns the node that has the key.
func (k *knownNodes) byKey(hash keyHash) (id int64, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id, known = k.keys[hash]
	return id, known && time.Now().Before(k.nodes[id].until)
}

func (k *knownNodes) keepBeat(id, moment int64, r wire.HeartbeatRequest, from Daemon, b Beat) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := k.node(id, moment); n != nil && n.noBeat <= moment && k.allBeats <= moment {
		n.ip, n.from, n.beat, n.revision = r.IP, from, &b, nil
		if r.Revision != nil {
			revision := *r.Revision // the request's body need not be kept
			n.revision = &revision
		}
	}
}

// beat returns the answer to a quiet heartbeat.
func (k *knownNodes) beat(id int64, r wire.HeartbeatRequest, from Daemon) (b Beat, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.nodes[id]
	if n == nil || n.beat == nil || time.Now().After(n.until) || !n.says(r, from) {
		return b, false
	}
	return *n.beat, true
}

// forget forgets nodes. Call it, and its kin, after the commit of a change, and before anybody is told of it.
func (k *knownNodes) forget(ids ...int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seq++
	for _, id := range ids {
		n := k.entry(id)
		k.clear(n)
		n.forgotten = k.seq
	}
}

// forgetBeats forgets the answers to nodes, and not their keys.
func (k *knownNodes) forgetBeats(ids ...int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seq++
	for _, id := range ids {
		n := k.entry(id)
		n.beat, n.noBeat = nil, k.seq
	}
}

// forgetAll is forget for all nodes.
func (k *knownNodes) forgetAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgetAllLocked()
}

func (k *knownNodes) forgetAllLocked() {
	k.seq++
	k.all, k.nodes, k.keys = k.seq, nil, nil
}

// forgetAllBeats is forgetBeats for all nodes.
func (k *knownNodes) forgetAllBeats() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seq++
	k.allBeats = k.seq
	for _, n := range k.nodes {
		n.beat = nil
	}
}

// hear says whether messages tell what other instances change.
func (k *knownNodes) hear(messages bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgetAllLocked()
	k.deaf = !messages
}

// forgetAway forgets the nodes that have sent no heartbeat for long.
func (k *knownNodes) forgetAway() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	k.seq++
	k.all = k.seq // an entry that is removed here can say that its node was forgotten
	maps.DeleteFunc(k.keys, func(_ keyHash, id int64) bool { return now.After(k.nodes[id].until) })
	maps.DeleteFunc(k.nodes, func(_ int64, n *knownNode) bool { return now.After(n.until) })
}

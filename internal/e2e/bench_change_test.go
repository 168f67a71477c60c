package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/coreclient/wire/delta"
)

// changer is a Core that changes one document, and sends what it changes.
type changer struct {
	*benchPair
	ports    []int // of the inbounds in-1, in-2 and so on
	etag     string
	revision int64
	digest   delta.Digest
	wire     float64 // bytes of the last delta
	clients  int     // that were ever there, on each inbound
}

// startChanger serves the clients on so many inbounds, and waits until the node runs them.
func startChanger(b *testing.B, inbounds int, uuids []string) *changer {
	b.Helper()
	c := &changer{benchPair: newBenchPair(b, kindVLESS("", streams{})), clients: len(uuids)}
	c.startAgent(b)
	refs := make(map[string]wire.ClientRef, len(uuids))
	for i, uuid := range uuids {
		refs[uuid] = wire.ClientRef{UserID: int64(i + 1)}
	}
	var all []any
	for n := range inbounds {
		port, err := FreePort()
		benchCheck(b, err)
		c.ports = append(c.ports, port)
		all = append(all, with(withClients(c.kind.config(port), c.accounts(uuids)), "tag", fmt.Sprintf("in-%d", n+1)))
	}
	benchCheck(b, c.core.publish(refs, map[string]any{"inbounds": all}))
	c.applied(b)
	var err error
	c.digest, err = delta.Of(c.core.body)
	benchCheck(b, err)
	c.revision = c.core.revision
	c.etag = strconv.Quote(strconv.FormatInt(c.revision, 10))
	return c
}

// applied waits until the node runs what Core has. 500,000 clients take long on a busy machine, and so do
// 5,000 more.
func (c *changer) applied(b *testing.B) {
	b.Helper()
	err := c.core.applied(b.Context())
	for tries := 1; err != nil && tries < 10; tries++ {
		err = c.core.applied(b.Context())
	}
	benchCheck(b, err)
}

// add lets the clients in on all inbounds, in one change, and returns when it was made.
func (c *changer) add(b *testing.B, uuids []string) time.Time {
	b.Helper()
	hasher := delta.NewHasher()
	revision := func(n int64) delta.Element {
		return delta.Element{Kind: delta.Member, Key: "revision", Raw: strconv.AppendInt(nil, n, 10)}
	}
	d := delta.Delta{Base: c.etag, Revision: c.revision + 1, ClientMap: delta.Map{Added: map[string]json.RawMessage{}}}
	d.ETag = strconv.Quote(strconv.FormatInt(d.Revision, 10))
	sum := c.digest.Minus(hasher.Hash(revision(c.revision))).Plus(hasher.Hash(revision(d.Revision)))
	var xray delta.ServiceDelta
	for n := range c.ports {
		in := delta.InboundDelta{Tag: fmt.Sprintf("in-%d", n+1)}
		for _, uuid := range uuids {
			raw, err := json.Marshal(c.kind.account(uuid))
			benchCheck(b, err)
			in.Clients.Added = append(in.Clients.Added, raw)
			sum = sum.Plus(hasher.Hash(delta.Element{Kind: delta.XrayClient, Inbound: in.Tag, Key: uuid, Raw: raw}))
		}
		xray.Inbounds = append(xray.Inbounds, in)
	}
	for i, uuid := range uuids {
		raw, err := json.Marshal(wire.ClientRef{UserID: int64(i + 1)})
		benchCheck(b, err)
		d.ClientMap.Added[uuid] = raw
		sum = sum.Plus(hasher.Hash(delta.Element{Kind: delta.ClientMap, Key: uuid, Raw: raw}))
	}
	d.Services, d.Digest = map[string]delta.ServiceDelta{delta.Xray: xray}, sum
	raw := d.Append(nil)
	c.wire = float64(len(raw))
	began := time.Now()
	c.core.change(func() { c.core.revision, c.core.delta, c.core.held = d.Revision, raw, d.Base })
	c.digest, c.revision, c.etag = sum, d.Revision, d.ETag
	return began
}

// connects waits until a client can connect to all inbounds.
func (c *changer) connects(b *testing.B, uuid string, target *net.TCPAddr) {
	b.Helper()
	for _, port := range c.ports {
		for deadline := time.Now().Add(Patience); ; time.Sleep(200 * time.Microsecond) {
			conn, err := openVLESS(port, uuid, target)
			if err == nil {
				_ = conn.Close()
				break
			}
			if time.Now().After(deadline) {
				b.Fatal(err)
			}
		}
	}
}

// change lets so many clients in on all inbounds, and returns the milliseconds until the last of them can
// connect to the last inbound.
func (c *changer) change(b *testing.B, clients int, target *net.TCPAddr) float64 {
	b.Helper()
	some := make([]string, clients)
	for i := range some {
		some[i] = benchUUID(c.clients)
		c.clients++
	}
	began := c.add(b, some)
	c.connects(b, some[len(some)-1], target)
	took := time.Since(began)
	c.applied(b)
	return float64(took.Microseconds()) / 1000
}

// BenchmarkChange reports how long clients more among 100,000 take from Core's change to the first
// connection, the daemon's processor time for it, and the bytes that Core sends.
func BenchmarkChange(b *testing.B) {
	for _, kind := range []struct {
		inbounds, clients int
	}{{1, 1}, {5, 1}, {1, 1000}, {5, 1000}} {
		b.Run(fmt.Sprintf("%dinbounds/%dclients", kind.inbounds, kind.clients), func(b *testing.B) {
			target := echoByte(b)
			c := startChanger(b, kind.inbounds, benchUUIDs(manyClients))
			c.change(b, kind.clients, target) // the node takes the document apart
			time.Sleep(atRest)
			resident, err := memory(c.agent.PID(), "VmRSS")
			benchCheck(b, err)
			var took []float64
			before := processorTime(b, c.agent.PID())
			for b.Loop() {
				took = append(took, c.change(b, kind.clients, target))
			}
			used := processorTime(b, c.agent.PID()) - before
			b.ReportMetric(median(took), "ms-to-connect")
			b.ReportMetric(used/float64(len(took))*1000, "CPU-ms")
			b.ReportMetric(c.wire, "wire-bytes")
			b.ReportMetric(resident, "MB-daemon")
			if c.core.deltas != len(took)+1 {
				b.Fatalf("%d deltas were sent for %d changes", c.core.deltas, len(took)+1)
			}
		})
	}
}

// BenchmarkFirstChange reports what the first change after a start of the daemon costs, of one client more
// among 100,000, where the daemon before has changed clients too.
func BenchmarkFirstChange(b *testing.B) {
	target := echoByte(b)
	c := startChanger(b, 1, benchUUIDs(manyClients))
	c.change(b, 1, target)
	var took, used []float64
	for b.Loop() {
		benchCheck(b, c.agent.Stop())
		c.core.change(func() { c.core.running = -1 })
		c.exec(b)
		c.applied(b)
		time.Sleep(atRest)
		before := processorTime(b, c.agent.PID())
		took = append(took, c.change(b, 1, target))
		used = append(used, processorTime(b, c.agent.PID())-before)
	}
	b.ReportMetric(median(took), "ms-to-connect")
	b.ReportMetric(median(used)*1000, "CPU-ms")
}

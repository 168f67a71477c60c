package relay

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/internal/occupancy"
)

// openSources returns the sources of so many workers of one node.
func openSources(t *testing.T, workers int) []*Sources {
	t.Helper()
	folder := t.TempDir()
	all := make([]*Sources, workers)
	for i := range all {
		table, err := occupancy.Open(filepath.Join(folder, "open"))
		if err != nil {
			t.Fatal(err)
		}
		if all[i], err = OpenSources(filepath.Join(folder, SourcesFile), table, make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = table.Close() })
	}
	return all
}

func source(address byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, address}), port)
}

func lanesOf(s *Sources, h sourceHash) map[int]bool {
	lanes := map[int]bool{}
	s.holders(h, func(e sourceEntry) { lanes[e.lane] = true })
	return lanes
}

// Every worker sees which workers hold a source, whatever they note and take back before.
func TestSourcesAreWhatWorkersNoted(t *testing.T) {
	all := openSources(t, 3)
	rapid.Check(t, func(t *rapid.T) {
		held := map[netip.AddrPort]map[int]bool{}
		defer func() {
			for of, lanes := range held {
				for lane := range lanes {
					all[lane].leave(all[lane].hash(7, of))
				}
			}
		}()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			of := source(byte(rapid.IntRange(1, 4).Draw(t, "address")), uint16(rapid.IntRange(0, 3).Draw(t, "port")))
			lane := rapid.IntRange(0, 2).Draw(t, "lane")
			if held[of] == nil {
				held[of] = map[int]bool{}
			}
			h := all[lane].hash(7, of)
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				all[lane].hold(h, rapid.SampledFrom([]holding{{until: forever, firm: true}, {until: waiting, firm: true}}).Draw(t, "association"))
				held[of][lane] = true
			case 1: // an answer takes no source from another worker
				all[lane].hold(h, holding{until: all[lane].now() + 1000, alone: true})
				if len(held[of]) == 0 {
					held[of][lane] = true
				}
			default:
				all[lane].leave(h)
				delete(held[of], lane)
			}
			for _, reader := range all {
				for of, want := range held {
					if have := lanesOf(reader, reader.hash(7, of)); !maps.Equal(have, want) {
						t.Fatalf("the source %s is held by %v, want %v", of, have, want)
					}
				}
				if have := lanesOf(reader, reader.hash(8, of)); len(have) > 0 {
					t.Fatalf("at another port the source %s is held by %v", of, have)
				}
			}
		}
	})
}

// An entry counts for nothing once its time is over, its worker withdraws, or ends; the next worker with
// its lane has none of it.
func TestSourcesEnd(t *testing.T) {
	all := openSources(t, 2)
	reader, other := all[0], all[1]
	at := func(port uint16) sourceHash { return reader.hash(7, source(1, port)) }
	other.hold(at(1), holding{until: other.now() - 1, alone: true})
	other.hold(at(2), holding{until: forever, alone: true})
	if have := lanesOf(reader, at(1)); len(have) > 0 {
		t.Errorf("a source whose time is over is held by %v", have)
	}
	if have := lanesOf(reader, at(2)); !maps.Equal(have, map[int]bool{1: true}) {
		t.Errorf("the source is held by %v, want lane 1", have)
	}
	other.withdraw()
	if have := lanesOf(reader, at(2)); len(have) > 0 {
		t.Errorf("a source of a worker that has withdrawn is held by %v", have)
	}
	path := other.file.Name()
	if err := other.table.Close(); err != nil {
		t.Fatal(err)
	}
	table, err := occupancy.Open(filepath.Join(filepath.Dir(path), "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	next, err := OpenSources(path, table, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if have := lanesOf(reader, at(2)); len(have) > 0 || table.Lane() != 1 {
		t.Errorf("a source of the worker before on lane %d is held by %v", table.Lane(), have)
	}
	next.hold(at(3), holding{until: next.now() + 100, alone: true})
	if have := lanesOf(reader, at(3)); !maps.Equal(have, map[int]bool{1: true}) {
		t.Errorf("the source is held by %v, want lane 1", have)
	}
}

// A table that is full notes no more sources, and those that are in it stay. The time of some is over:
// others take their places.
func TestSourcesAreBounded(t *testing.T) {
	all := openSources(t, 2)
	s := all[0]
	until := s.now() + 1000
	fill := func(address byte) (noted int) {
		for port := range 60_000 {
			h := s.hash(uint16(address), source(address, uint16(port+1)))
			s.hold(h, holding{until: until, alone: true})
			if len(lanesOf(all[1], h)) > 0 {
				noted++
			}
		}
		return noted
	}
	first := fill(1)
	second := fill(2)
	if first < 59_000 || first+second > sourcesEntries || first+second < sourcesEntries*9/10 {
		t.Errorf("%d and %d sources were noted in %d entries", first, second, sourcesEntries)
	}
	for i := range s.entries {
		if e := entryOf(s.entries[i].Load()); e.lane >= 0 {
			e.until = s.now() - 1
			s.entries[i].Store(e.word())
		}
	}
	if third := fill(3); third < 59_000 {
		t.Errorf("%d sources were noted in the places of those whose time is over", third)
	}
}

// sourceWorker answers each datagram with its name and the datagram, until it is ended.
type sourceWorker struct {
	relay  *Relay
	socket net.PacketConn
	end    func()
}

func startSourceWorker(t *testing.T, folder, name, at string) *sourceWorker {
	t.Helper()
	table, err := occupancy.Open(filepath.Join(folder, "open"))
	if err != nil {
		t.Fatal(err)
	}
	key := make([]byte, 32)
	copy(key, folder[max(0, len(folder)-32):]) // names of unix sockets are made of it: other tests need others
	w := &sourceWorker{}
	if w.relay, err = New(table, key); err != nil {
		t.Fatal(err)
	}
	sources, err := OpenSources(filepath.Join(folder, SourcesFile), table, key)
	if err != nil {
		t.Fatal(err)
	}
	w.relay.Share(sources)
	socket, err := sharedPorts.ListenPacket(t.Context(), "udp", at)
	if err != nil {
		t.Fatal(err)
	}
	w.socket = w.relay.listenSources(socket, time.Minute, false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 8192)
		for {
			n, from, err := w.socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = w.socket.WriteTo(append([]byte(name+" "), buffer[:n]...), from)
		}
	}()
	ended := false
	w.end = func() {
		if !ended {
			ended = true
			_ = w.socket.Close()
			<-done
			_ = w.relay.Close()
			_ = table.Close()
		}
	}
	t.Cleanup(w.end)
	return w
}

// long is how long a source waits for an answer that has to come, on a machine that does other things too.
const long = 10 * time.Second

// ask sends a datagram and returns the worker that has answered within the time.
type ask func(within time.Duration) string

func sourceClient(t *testing.T, at string) ask {
	t.Helper()
	conn, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	number := 0
	return func(within time.Duration) string {
		number++
		if _, err := fmt.Fprint(conn, number); err != nil {
			return err.Error()
		}
		_ = conn.SetReadDeadline(time.Now().Add(within))
		buffer := make([]byte, 100)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return err.Error()
			}
			var name string
			var of int
			if _, err := fmt.Sscan(string(buffer[:n]), &name, &of); err == nil && of == number {
				return name
			}
		}
	}
}

// A source stays with the worker that serves it, before and while that worker drains, whatever socket
// the kernel chooses; a new one comes to the next worker. Once the old one has ended, all come there.
func TestSourcesOutliveATakeover(t *testing.T) {
	folder := t.TempDir()
	first := startSourceWorker(t, folder, "first", "127.0.0.1:0")
	at := first.socket.LocalAddr().String()
	clients := map[string][]ask{}
	some := func(name string) { // all in the kernel's choice for one worker: 1 in 256
		for range 8 {
			ask := sourceClient(t, at)
			if have := ask(long); have != name {
				t.Errorf("a new source: %s answers, want %s", have, name)
			}
			clients[name] = append(clients[name], ask)
		}
	}
	stay := func(when string) {
		t.Helper()
		for name, asks := range clients {
			for i, ask := range slices.Concat(asks, asks) {
				if have := ask(long); have != name {
					t.Errorf("%s: to client %d of the %s worker answers %s", when, i, name, have)
				}
			}
		}
	}
	some("first")
	second := startSourceWorker(t, folder, "second", at)
	stay("while two workers serve")
	first.relay.Drain()
	if !first.relay.KeepsSources() {
		t.Fatal("the first worker gives its sources up")
	}
	some("second")
	stay("while the first worker drains")
	third := startSourceWorker(t, folder, "third", at)
	second.relay.Drain()
	some("third")
	stay("while two workers drain")
	if first.relay.Passed.Load() == 0 || third.relay.Passed.Load() == 0 {
		t.Errorf("the first worker has passed %d datagrams, the third %d", first.relay.Passed.Load(), third.relay.Passed.Load())
	}
	first.end()
	second.end()
	for i, ask := range slices.Concat(clients["first"], clients["second"]) {
		have := ask(200 * time.Millisecond)
		if have != "third" { // a datagram that went to the worker that has just ended is lost
			have = ask(long)
		}
		if have != "third" {
			t.Errorf("after the end of its worker, to client %d answers %s", i, have)
		}
	}
}

// A worker gives up its sources where the worker that serves takes none, and where that comes later, it
// closes its sockets.
func TestSourcesNeedTheNextWorker(t *testing.T) {
	folder := t.TempDir()
	first := startSourceWorker(t, folder, "first", "127.0.0.1:0")
	at := first.socket.LocalAddr().String()
	second := startSourceWorker(t, folder, "second", at)
	first.relay.Drain()
	if !first.relay.KeepsSources() {
		t.Error("it gives its sources up to a worker that passes them on")
	}
	second.relay.sources.withdraw() // as a worker of a build that knows of no sources
	if first.relay.KeepsSources() {
		t.Error("it keeps its sources while the worker that serves passes none on")
	}
	for range 16 { // some come to the first worker: all but one in 65,536
		ask := sourceClient(t, at)
		have := ask(200 * time.Millisecond)
		if have != "second" { // the first datagram that is lost has told the first worker
			have = ask(long)
		}
		if have != "second" {
			t.Fatalf("to a new source answers %s, want second", have)
		}
	}
}

// Workers and goroutines that note sources at the same time lose none.
func TestNoSourceIsLostAmongMany(t *testing.T) {
	const workers, ports, rounds = 8, 1500, 10
	all := openSources(t, 2)
	lost := 0
	for range rounds {
		var together sync.WaitGroup
		for w := range workers {
			together.Go(func() {
				for port := range ports {
					all[w%2].hold(all[0].hash(1, source(byte(w), uint16(port+1))), holding{until: forever, firm: true})
				}
			})
		}
		together.Wait()
		for w := range workers {
			for port := range ports {
				h := all[0].hash(1, source(byte(w), uint16(port+1)))
				if len(lanesOf(all[0], h)) == 0 {
					lost++
				}
				all[w%2].leave(h)
			}
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d sources were not noted", lost, rounds*workers*ports)
	}
	for i := range all[0].entries {
		if word := all[0].entries[i].Load(); word != 0 {
			t.Fatalf("entry %d has %+v after all sources were left", i, entryOf(word))
		}
	}
}

// Where forged sources have filled the table, associations and connections over mKCP are noted all the same, and
// stay. They displace sources that are not firm, and connections displace no association.
func TestForgedSourcesDisplaceNobody(t *testing.T) {
	all := openSources(t, 2)
	s := all[0]
	forged := func() {
		for i := range 4 * sourcesEntries {
			s.hold(s.hash(53, source(byte(i>>16), uint16(i))), holding{until: s.now() + 1000, alone: true})
		}
	}
	missing := func(kind string, port uint16) {
		t.Helper()
		missed := 0
		for i := range 1000 {
			if len(lanesOf(all[1], s.hash(port, source(9, uint16(i+1))))) == 0 {
				missed++
			}
		}
		if missed > 0 {
			t.Errorf("%d of 1000 %s are not noted", missed, kind)
		}
	}
	forged()
	for i := range 1000 {
		s.hold(s.hash(1080, source(9, uint16(i+1))), holding{until: forever, firm: true})
		s.hold(s.hash(443, source(9, uint16(i+1))), holding{until: s.now() + 500, alone: true, firm: true})
	}
	forged()
	missing("associations", 1080)
	missing("connections", 443)
	for i := range 4 * sourcesEntries {
		s.hold(s.hash(444, source(byte(i>>16), uint16(i))), holding{until: s.now() + 1000, alone: true, firm: true})
	}
	missing("associations, after a flood of connections", 1080)
}

// A source that was answered once is held for half a minute, and for its whole life from the next answer on.
func TestASourceIsTried(t *testing.T) {
	s := openSources(t, 1)[0]
	h := s.hash(7, source(1, 1))
	until := func() (until uint32) {
		s.holders(h, func(e sourceEntry) { until = e.until })
		return until
	}
	answered := holding{until: s.now() + 300, first: s.now() + tryLife, alone: true}
	if s.hold(h, answered); until() != answered.first {
		t.Errorf("after one answer it is held until second %d, want %d", until(), answered.first)
	}
	if s.hold(h, answered); until() != answered.until {
		t.Errorf("after two answers it is held until second %d, want %d", until(), answered.until)
	}
}

// A new port of an address goes to the worker with an association that waits for its first datagram, rather
// than to the one that serves.
func TestNewPortsGoWhereAnAssociationWaits(t *testing.T) {
	all := openSources(t, 2)
	old, serving := all[0], all[1]
	client := source(1, 0)
	h := old.hash(7, client)
	for _, c := range []struct {
		old, serving uint32
		want         int
	}{
		{forever, forever, 1},
		{waiting, forever, 0},
		{waiting, waiting, 1},
		{forever, waiting, 1},
	} {
		old.hold(h, holding{until: c.old, firm: true})
		serving.hold(h, holding{until: c.serving, firm: true})
		for _, reader := range all {
			if lane, is := reader.laneOf(7, source(1, 5000), 1); !is || lane != c.want {
				t.Errorf("with ends %d and %d a new port goes to lane %d (%v), want %d", c.old, c.serving, lane, is, c.want)
			}
		}
	}
}

func BenchmarkHold(b *testing.B) {
	table, err := occupancy.Open(filepath.Join(b.TempDir(), "open"))
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	s, err := OpenSources(filepath.Join(b.TempDir(), SourcesFile), table, make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	of := source(1, 2)
	for b.Loop() {
		s.hold(s.hash(7, of), holding{until: s.now() + 20, alone: true})
	}
}

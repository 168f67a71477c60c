package telemt

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"nodeagent/internal/testfiles"
	"nodeagent/telemt/api"
	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

func outlives(c *Config) { c.CountersEpoch = "one" }

// restored runs the next engine, which restores a service, and waits until an inbound is up.
func (r *rig) restored(s service.Service, tag string) InboundStatus {
	r.t.Helper()
	r.run()
	if err := r.engine.Restore(r.t.Context(), s); err != nil {
		r.t.Fatal(err)
	}
	r.eventually("the inbound is up", func() bool { return r.inbound(tag).State == StateReady && r.inbound(tag).PID > 0 })
	return r.inbound(tag)
}

// A telemt outlives its daemon: sessions go on, and what moves meanwhile is counted once.
func TestAdoption(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary, outlives)
		port := r.port()
		s := r.service(inbound(1, port, "", client("alice"), client("bob")))
		r.apply(s)
		pid := r.inbound("mtproto-1").PID
		conn := r.dial(port, "alice")
		exchanges, up, down := uint64(1), uint64(1), uint64(1)
		move := func() {
			t.Helper()
			r.exchange(conn, 1000, 2000)
			exchanges, up, down = exchanges+1, up+1000, down+2000
		}
		move()
		r.wantCounted(slot(1, "alice"), exchanges, up, down)
		for range 2 {
			move() // not read before the end
			r.leave()
			move() // while there is no daemon
			if now := r.restored(s, "mtproto-1"); now.PID != pid {
				t.Fatalf("telemt %d runs, before it was %d", now.PID, pid)
			}
			move()
			r.wantCounted(slot(1, "alice"), exchanges, up, down)
		}
		r.exchange(r.dial(port, "bob"), 10, 10)

		// The configuration has changed meanwhile: a removed client is cut, and no other.
		r.leave()
		s = r.service(inbound(1, port, "", client("alice"), client("carol")))
		if now := r.restored(s, "mtproto-1"); now.PID != pid {
			t.Fatalf("telemt %d runs, before it was %d", now.PID, pid)
		}
		move()
		r.wantCounted(slot(1, "alice"), exchanges, up, down)
		r.eventually("carol may come in, and bob may not", func() bool {
			_, carol := r.tries(port, "carol")
			_, bob := r.tries(port, "bob")
			return carol && !bob
		})

		// Without its inbound, telemt ends.
		r.leave()
		r.run()
		if err := r.engine.Restore(t.Context(), r.service()); err != nil {
			t.Fatal(err)
		}
		r.cut(conn, patience)
		for _, f := range r.failures {
			t.Errorf("reported: %s", f.Message)
		}
	})
}

// A telemt that ended while there was no daemon, or that counts into other counters, is replaced.
func TestNothingToAdopt(t *testing.T) {
	r := newRig(t, double(t), outlives)
	port := r.port()
	s := r.service(inbound(1, port, "", client("alice")))
	r.apply(s)
	pid := r.inbound("mtproto-1").PID
	r.leave()
	r.signal(pid, 9)
	second := r.restored(s, "mtproto-1")
	if second.PID == pid {
		t.Fatal("a telemt that has ended is adopted")
	}
	r.dial(port, "alice")
	r.wantCounted(slot(1, "alice"), 1, 1, 1)
	r.leave()
	r.config.CountersEpoch = "two"
	if third := r.restored(s, "mtproto-1"); third.PID == second.PID {
		t.Error("a telemt is adopted that counted into other counters")
	}
	r.dial(port, "alice")
	r.wantCounted(slot(1, "alice"), 2, 2, 2)
}

// The record of a client that was added right before the restart does not tell its slot: the client
// keeps its own, and no other slot is closed or gets its bytes.
func TestAdoptionOfANewClient(t *testing.T) {
	for name, c := range map[string]struct {
		wanted  []string
		slot    uint32 // of alice; 0 for hers
		adopted bool
	}{
		"it stays":            {[]string{"alice", "carol"}, 0, true},
		"it is not wanted":    {[]string{"alice"}, 0, false},
		"a slot is another's": {[]string{"alice", "carol"}, 77, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, double(t), outlives)
			port := r.port()
			r.apply(r.service(inbound(1, port, "", client("alice"))))
			pid := r.inbound("mtproto-1").PID
			r.dial(port, "alice")
			r.wantCounted(slot(1, "alice"), 1, 1, 1)
			r.apply(r.service(inbound(1, port, "", client("alice"), client("carol"))))
			r.leave()
			var clients []string
			for _, name := range c.wanted {
				clients = append(clients, client(name))
			}
			wanted := r.service(inbound(1, port, "", clients...))
			if c.slot != 0 {
				wanted.Inbounds[0].Clients[0].Slot = c.slot
			}
			if now := r.restored(wanted, "mtproto-1"); (now.PID == pid) != c.adopted {
				t.Errorf("telemt %d runs, before it was %d", now.PID, pid)
			}
			if c.adopted {
				r.dial(port, "carol")
				r.wantCounted(slot(1, "carol"), 1, 1, 1)
			}
			for range readsToClose + 1 {
				r.engine.Collect(t.Context())
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.closed) > 0 || r.counted[0] != (api.Octets{}) {
				t.Errorf("closed are %v, and slot 0 has %+v", r.closed, r.counted[0])
			}
		})
	}
}

// While there is no daemon, telemt's output is bounded: telemt goes on where a line does not fit any more.
func TestOutputIsBounded(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary, outlives)
		port := r.port()
		s := r.service(inbound(1, port, "", client("alice"), client("bob")))
		r.apply(s)
		pid := r.inbound("mtproto-1").PID
		var limit unix.Rlimit
		if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &limit); err != nil {
			t.Fatal(err)
		}
		if limit.Cur > 100<<20 {
			t.Fatalf("a file of telemt may have %d bytes", limit.Cur)
		}
		conn := r.dial(port, "alice")
		r.exchange(conn, 10, 10)
		folder := process.FolderOf(r.config.StateDir, "mtproto-1")
		output := filepath.Join(string(folder), "output.log")
		size := func() int64 {
			t.Helper()
			info, err := os.Stat(output)
			if err != nil {
				t.Fatal(err)
			}
			return info.Size()
		}
		r.leave()
		// telemt tells of each change of its file. The node writes the file again after this.
		config, err := os.ReadFile(folder.Config())
		if err != nil {
			t.Fatal(err)
		}
		edits := 0
		edit := func() {
			t.Helper()
			edits++
			testfiles.Replace(t, folder.Config(), fmt.Appendf(nil, "%s\n[access.users]\nu%d = \"%032x\"\n", config, edits, edits))
			testfiles.Replace(t, folder.Config(), []byte("nonsense"))
		}
		before := size()
		r.eventually("telemt tells of changes", func() bool { edit(); return size() > before })
		limit.Cur = uint64(size())
		if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			edit()
			r.exchange(conn, 10, 10)
		}
		if has := uint64(size()); has > limit.Cur {
			t.Errorf("the output has %d bytes, and may have %d", has, limit.Cur)
		}
		testfiles.Replace(t, folder.Config(), config)
		r.exchange(r.dial(port, "bob"), 10, 10)
		limit.Cur = limit.Max
		if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
			t.Fatal(err)
		}
		if now := r.restored(s, "mtproto-1"); now.PID != pid {
			t.Fatalf("telemt %d runs, before it was %d", now.PID, pid)
		}
		r.exchange(conn, 10, 10)
	})
}

var errKilled = "the daemon is killed here"

// A daemon may be killed between any two steps of reading and counting, and also while it asks for a new
// generation: each byte is counted once.
func TestCountsSurviveKills(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b"}
		slots := map[string]uint32{"a": 1, "b": 2}
		started := time.Now()
		real := &fakeTelemt{now: started, began: started, users: map[string]api.Octets{}}
		have, want := map[uint32]api.Octets{}, map[uint32]api.Octets{}
		var kept []byte
		steps, killAt := 0, -1
		step := func() {
			if steps++; steps == killAt {
				panic(errKilled)
			}
		}
		start := func() *traffic {
			tr := newTraffic(Deps{
				Count: func(slot uint32, up, down uint64) {
					step()
					o := have[slot]
					o.Up += up
					have[slot] = o
					step()
					o.Down += down
					have[slot] = o
					step()
				},
				Octets:      func(slot uint32) (up, down uint64) { return have[slot].Up, have[slot].Down },
				Presence:    func(Presence) {},
				SlotsClosed: func([]uint32) {},
			})
			maps.Copy(tr.slots, slots)
			tr.keep = func() {
				step()
				kept, _ = json.Marshal(record{Users: tr.users, Reload: tr.asked})
				step()
			}
			return tr
		}
		tr := start()
		for name, slot := range slots {
			tr.users[name] = counted{slot, api.Octets{}}
		}
		tr.keep()
		survive := func(do func()) {
			defer func() {
				if p := recover(); p != nil {
					if p != errKilled {
						panic(p)
					}
					killAt = -1
					var r record
					if err := json.Unmarshal(kept, &r); err != nil {
						t.Fatal(err)
					}
					tr = start()
					tr.resume(r)
				}
			}()
			do()
		}
		t.Repeat(map[string]func(*rapid.T){
			"move": func(t *rapid.T) {
				name := rapid.SampledFrom(names).Draw(t, "name")
				moved := api.Octets{Up: rapid.Uint64Range(0, 1000).Draw(t, "up"), Down: rapid.Uint64Range(0, 1000).Draw(t, "down")}
				o, w := real.users[name], want[slots[name]]
				real.users[name] = api.Octets{Up: o.Up + moved.Up, Down: o.Down + moved.Down}
				want[slots[name]] = api.Octets{Up: w.Up + moved.Up, Down: w.Down + moved.Down}
				real.now = real.now.Add(time.Second)
			},
			"read": func(*rapid.T) {
				survive(func() { tr.add(real.sample()) })
			},
			"read and be killed": func(t *rapid.T) {
				steps, killAt = 0, rapid.IntRange(1, 8).Draw(t, "step")
				survive(func() { tr.add(real.sample()) })
				killAt = -1
			},
			"be killed": func(*rapid.T) {
				survive(func() { panic(errKilled) })
			},
		})
		survive(func() { tr.add(real.sample()) })
		for _, slot := range slots {
			if have[slot] != want[slot] {
				t.Fatalf("slot %d has %+v, want %+v", slot, have[slot], want[slot])
			}
		}
	})
}

// Whether a generation is new is known by its age, also where answers are slow.
func TestReloadBegun(t *testing.T) {
	asked := &reloading{At: 1000 * time.Second, Uptime: time.Hour}
	for _, c := range []struct {
		now, uptime time.Duration
		want        bool
	}{
		{1005 * time.Second, time.Hour + 5*time.Second, false},
		{1005 * time.Second, time.Hour, false}, // the answer was slow
		{1005 * time.Second, 4 * time.Second, true},
		{2000 * time.Second, 999 * time.Second, true},
		{2000 * time.Second, time.Hour + 1000*time.Second, false},
	} {
		if got := asked.begun(api.Sample{Uptime: c.uptime}, c.now); got != c.want {
			t.Errorf("at %s with an uptime of %s: %t, want %t", c.now, c.uptime, got, c.want)
		}
	}
}

package xray_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nodeagent/internal/fault"
	"nodeagent/internal/testfiles"
	"nodeagent/xray/state"
)

const anObservatory = `,"observatory":{"subjectSelector":["direct"],"probeInterval":"1h"}`

// withUnix is state with bob, and with VLESS inbounds for alice at the places, named
// unix-1 and so on. The word is in their settings: another one replaces them.
func (r *rig) withUnix(word, more string, places ...string) state.State {
	r.t.Helper()
	s := r.state(more, bobID)
	for i, listen := range places {
		tag := fmt.Sprintf("unix-%d", i+1)
		other, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":%q,"listen":%q,"protocol":"vless",
			"settings":{"decryption":"none","clients":[{"id":%q,"email":%q}]},
			"sniffing":{"enabled":true,"destOverride":["tls"],"domainsExcluded":[%q]}}]}`, tag, listen, aliceID, aliceID, word)), func(string) bool { return true })
		if err != nil {
			r.t.Fatal(err)
		}
		other.Inbounds[tag].Clients[0].Slot = uint32(3 + i)
		s.Inbounds[tag] = other.Inbounds[tag]
	}
	return s
}

// dialUnix opens a connection to the echo as alice, and uses it once.
func (r *rig) dialUnix(path string) (net.Conn, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	id, _ := hex.DecodeString(strings.ReplaceAll(aliceID, "-", ""))
	port := r.echo.Addr().(*net.TCPAddr).Port
	request := append(append([]byte{0}, id...), 0, 1, byte(port>>8), byte(port), 1, 127, 0, 0, 1, 'x')
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, make([]byte, 3)); err != nil {
		return nil, err
	}
	return conn, use(conn)
}

func (r *rig) mustDialUnix(path string) net.Conn {
	r.t.Helper()
	conn, err := r.dialUnix(path)
	if err != nil {
		r.t.Fatal(err)
	}
	return conn
}

func (r *rig) alive(conns ...net.Conn) {
	r.t.Helper()
	for i, conn := range conns {
		if err := use(conn); err != nil {
			r.t.Errorf("connection %d: %v", i, err)
		}
	}
}

func filesIn(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// onUnixSockets runs a test for a socket with a path and for an abstract one.
func onUnixSockets(t *testing.T, do func(t *testing.T, r *rig, path string)) {
	t.Run("path", func(t *testing.T) { do(t, newRig(t), filepath.Join(t.TempDir(), "x.sock")) })
	t.Run("abstract", func(t *testing.T) {
		do(t, newRig(t), fmt.Sprintf("@node-agent-test-%d-%d", os.Getpid(), freePort(t)))
	})
}

// Other settings of an inbound on a unix socket cut nobody, there or elsewhere.
func TestUnixSocketReplaced(t *testing.T) {
	onUnixSockets(t, func(t *testing.T, r *rig, path string) {
		r.apply(r.withUnix("one", "", path))
		alice, bob, pid := r.mustDialUnix(path), r.dial(bobID), r.engine.Status().PID
		r.apply(r.withUnix("two", "", path))
		r.alive(alice, bob, r.mustDialUnix(path))
		if s := r.engine.Status(); s.PID != pid || s.Restarts != 0 {
			t.Errorf("another worker runs: %+v", s)
		}
	})
}

// A socket with a path has no moment without a listener, has the mode that was asked
// for, and leaves nothing.
func TestUnixSocketWithoutGap(t *testing.T) {
	r, path := newRig(t), filepath.Join(t.TempDir(), "x.sock")
	r.apply(r.withUnix("0", "", path+",0640"))
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			conn, err := r.dialUnix(path)
			if err != nil {
				done <- err
				return
			}
			_ = conn.Close()
		}
	}()
	for i := range 10 {
		r.apply(r.withUnix(fmt.Sprint(i+1), "", path+",0666"))
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if names := filesIn(t, filepath.Dir(path)); len(names) != 1 {
		t.Errorf("beside the socket are %q", names)
	}
	r.apply(r.withUnix("", ""))
	if names := filesIn(t, filepath.Dir(path)); len(names) != 0 {
		t.Errorf("left are %q", names)
	}
}

// The socket that a killed worker leaves does not keep the next worker from listening.
func TestUnixSocketAfterKill(t *testing.T) {
	onUnixSockets(t, func(t *testing.T, r *rig, path string) {
		r.apply(r.withUnix("one", "", path))
		if path[0] == '/' {
			// xray-core makes the socket under this name before it is renamed.
			beside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"~ABCDEF")
			testfiles.Replace(t, beside, nil)
			testfiles.Replace(t, beside+".lock", nil)
		}
		pid := r.engine.Status().PID
		sendSignal(t, pid, syscall.SIGKILL)
		r.eventually("the next worker serves", func() bool {
			s := r.engine.Status()
			_, err := r.dialUnix(path)
			return s.PID != pid && err == nil
		})
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, f := range r.failed {
			if !f.Crash {
				t.Errorf("failed: %+v", f)
			}
		}
		if path[0] == '/' {
			if names := filesIn(t, filepath.Dir(path)); len(names) != 1 {
				t.Errorf("beside the socket are %q", names)
			}
		}
	})
}

// A new worker takes the socket, and the old one serves its connections to their end.
func TestUnixSocketTakenOver(t *testing.T) {
	onUnixSockets(t, func(t *testing.T, r *rig, path string) {
		r.apply(r.withUnix("one", "", path))
		alice, bob, pid := r.mustDialUnix(path), r.dial(bobID), r.engine.Status().PID
		r.apply(r.withUnix("one", anObservatory, path))
		if s := r.engine.Status(); s.PID == pid || s.Draining != 1 {
			t.Errorf("no worker took over: %+v", s)
		}
		r.alive(alice, bob, r.mustDialUnix(path))
		r.apply(r.withUnix("two", anObservatory, path))
		r.alive(r.mustDialUnix(path))
	})
}

// A worker that can't take over gives back what it took.
func TestUnixSocketTakenBack(t *testing.T) {
	onUnixSockets(t, func(t *testing.T, r *rig, path string) {
		last := "@" + strings.TrimPrefix(path, "@") + "-last"
		r.apply(r.withUnix("one", "", path))
		alice, bob, pid := r.mustDialUnix(path), r.dial(bobID), r.engine.Status().PID
		testfiles.Replace(t, filepath.Join(r.assets, "fail"), []byte("round 3"))
		err := r.engine.Apply(t.Context(), r.withUnix("two", anObservatory, path, last))
		if err == nil || !strings.Contains(err.Error(), failedByTest) {
			t.Fatalf("got %v", err)
		}
		if s := r.engine.Status(); s.PID != pid {
			t.Errorf("another worker runs: %+v", s)
		}
		r.alive(alice, bob, r.mustDialUnix(path))
	})
}

// A socket that another process listens on is left to it.
func TestUnixSocketHeld(t *testing.T) {
	onUnixSockets(t, func(t *testing.T, r *rig, path string) {
		r.apply(r.withUnix("one", ""))
		other, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		err = r.engine.Apply(t.Context(), r.withUnix("one", "", path))
		refusal, is := errors.AsType[*fault.Fault](err)
		if !is || refusal.Code != fault.PortInUse || refusal.Tag != "unix-1" || !strings.Contains(refusal.Message, path) {
			t.Errorf("got %+v", err)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		other.(*net.UnixListener).SetUnlinkOnClose(false)
		_ = other.Close()
		r.apply(r.withUnix("one", "", path)) // nobody listens on the file
		r.alive(r.mustDialUnix(path))
	})
}

// A unix socket that can't be made is refused by name, and what is there stays.
func TestUnixSocketRefused(t *testing.T) {
	r, folder := newRig(t), t.TempDir()
	file := filepath.Join(folder, "file")
	testfiles.Replace(t, file, []byte("somebody's"))
	for place, want := range map[string]string{
		file:                                    "something else is at its path",
		filepath.Join(folder, "none", "x.sock"): "folder",
		filepath.Join(folder, strings.Repeat("x", 100)):         "bytes",
		filepath.Join(folder, "x.sock") + ",rw":                 "mode",
		filepath.Join(folder, "none", "y.sock") + ",0666":       "y.sock",
		filepath.Join(folder, strings.Repeat("y", 100)) + ",06": "yyy",
	} {
		if err := r.engine.Apply(t.Context(), r.withUnix("", "", place)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "unix-1") {
			t.Errorf("%s: got %v", place, err)
		}
	}
	if err := r.engine.Apply(t.Context(), r.withUnix("", "", file+"1", file+"1,0666")); err == nil || !strings.Contains(err.Error(), `"unix-1" and "unix-2"`) {
		t.Errorf("two on one socket: got %v", err)
	}
	if body, err := os.ReadFile(file); err != nil || string(body) != "somebody's" {
		t.Errorf("the file at the path has %q, %v", body, err)
	}
}

// Two inbounds change places in one change.
func TestUnixSocketsSwapped(t *testing.T) {
	onUnixSockets(t, func(t *testing.T, r *rig, path string) {
		one, two := path, path+"2"
		r.apply(r.withUnix("", "", one, two))
		alice := r.mustDialUnix(one)
		r.apply(r.withUnix("", "", two, one))
		r.alive(alice, r.mustDialUnix(one), r.mustDialUnix(two))
		r.apply(r.withUnix("", "", two))
		r.alive(r.mustDialUnix(two))
		if _, err := r.dialUnix(one); err == nil {
			t.Error("what was removed serves")
		}
	})
}

// Every transport that xray-core has on unix sockets is replaced and removed, also the one
// that listens in a goroutine of its own.
func TestUnixSocketOfEveryTransport(t *testing.T) {
	r, path := newRig(t), filepath.Join(t.TempDir(), "x.sock")
	for _, stream := range []string{`"ws","wsSettings":{"path":"/%s"}`, `"httpupgrade","httpupgradeSettings":{"path":"/%s"}`, `"xhttp","xhttpSettings":{"path":"/%s"}`, `"grpc","grpcSettings":{"serviceName":"%s"}`} {
		for _, word := range []string{"one", "two"} {
			s := r.withUnix("", "")
			other, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-9","listen":%q,"protocol":"trojan","settings":{},"streamSettings":{"network":`+stream+`}}]}`, path+",0666", word)), func(string) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			s.Inbounds["in-9"] = other.Inbounds["in-9"]
			r.apply(s)
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatalf("%s: %v", stream, err)
			}
			_ = conn.Close()
		}
		r.apply(r.withUnix("", ""))
		if names := filesIn(t, filepath.Dir(path)); len(names) != 0 {
			t.Errorf("%s: left are %q", stream, names)
		}
	}
}

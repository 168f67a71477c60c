package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// socketKeeper keeps the listening sockets of a service over its restarts, as systemd does
// (sd_notify(3), FDSTORE=1; sd_listen_fds(3)).
type socketKeeper struct {
	t    *testing.T
	path string
	mu   sync.Mutex
	kept map[string]*os.File
}

func newSocketKeeper(t *testing.T) *socketKeeper {
	t.Helper()
	k := &socketKeeper{t: t, path: filepath.Join(t.TempDir(), "notify"), kept: map[string]*os.File{}}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: k.path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { _ = socket.Close() })
	go k.serve(socket)
	return k
}

func (k *socketKeeper) serve(socket *net.UnixConn) {
	text, rights := make([]byte, 4096), make([]byte, 4096)
	for {
		n, rightsLen, _, _, err := socket.ReadMsgUnix(text, rights)
		if err != nil {
			return
		}
		var name string
		for line := range bytes.Lines(text[:n]) {
			if value, is := strings.CutPrefix(strings.TrimSpace(string(line)), "FDNAME="); is {
				name = value
			}
		}
		messages, err := syscall.ParseSocketControlMessage(rights[:rightsLen])
		if err != nil || len(messages) == 0 || !bytes.HasPrefix(text[:n], []byte("FDSTORE=1")) {
			continue
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil {
			k.t.Error(err)
			return
		}
		k.mu.Lock()
		k.kept[name] = os.NewFile(uintptr(fds[0]), name)
		k.mu.Unlock()
	}
}

// start starts Core with the sockets that are kept, and waits until it answers.
func (k *socketKeeper) start(c *Core) error {
	k.mu.Lock()
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", c.path, "serve", "--data-dir", c.dir, "--listen", c.listen}, c.more...)...)
	var names []string
	for name, file := range k.kept {
		names, cmd.ExtraFiles = append(names, name), append(cmd.ExtraFiles, file)
	}
	k.mu.Unlock()
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+k.path, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	var err error
	if c.process, err = startCommand(c.dir+".log", cmd); err != nil {
		return err
	}
	return c.answers(k.t.Context())
}

// Core restarts while a node posts and clients connect: no connection is refused, and what the node
// posts is there in the end, once.
func TestCoreHandsItsSocketOver(t *testing.T) {
	w := newWorld(t)
	keeper := newSocketKeeper(t)
	must(t, w.core.Stop())
	must(t, keeper.start(w.core))
	p, alice := w.protocol(), w.subscriber("alice")
	w.start()
	var taken atomic.Int64
	stop := make(chan struct{})
	var connecting sync.WaitGroup
	connecting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			conn, err := net.DialTimeout("tcp", w.core.listen, Patience)
			if err != nil {
				t.Errorf("Core refused a connection, after %d that it took: %v", taken.Load(), err)
				return
			}
			_ = conn.Close()
			taken.Add(1)
		}
	})
	target, client := w.target(), w.linkClient(alice.Links[0])
	for range 3 {
		must(t, client.Exchange(target.Addr(), 10_000, 20_000))
		before := taken.Load()
		must(t, w.core.Stop())
		must(t, Eventually(t.Context(), func() error { // into the socket that nobody reads
			if taken.Load() < before+5 && !t.Failed() {
				return fmt.Errorf("%d connections", taken.Load()-before)
			}
			return nil
		}))
		must(t, keeper.start(w.core))
	}
	close(stop)
	connecting.Wait()
	w.synced()
	w.stopAgent()
	w.wantUsage(map[Account]Traffic{{alice.UserID, p.ID}: target.Traffic()})
	if log := w.core.Log(); strings.Count(log, "the listening socket of the Core before goes on") != 3 {
		t.Errorf("the socket was not handed over three times; the log is:\n%s", log)
	}
}

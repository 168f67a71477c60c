package ipc

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// shake makes a handshake over a pipe, and returns what each side says of it.
func shake(t *testing.T, ours, theirs string) (daemon, worker error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	answered := make(chan error, 1)
	go func() {
		err := Answer(NewFrameConn(b), []byte(theirs))
		if err != nil {
			_ = b.Close()
		}
		answered <- err
	}()
	if _, daemon = Greet(NewFrameConn(a), []byte(ours)); daemon != nil {
		_ = a.Close()
	}
	return daemon, <-answered
}

func TestHandshake(t *testing.T) {
	if daemon, worker := shake(t, "secret", "secret"); daemon != nil || worker != nil {
		t.Errorf("with one secret: %v, %v", daemon, worker)
	}
	if daemon, worker := shake(t, "secret", "another"); !errors.Is(daemon, ErrOtherSecret) || worker == nil {
		t.Errorf("with two secrets: %v, %v", daemon, worker)
	}
}

// A side that echoes what the other one says knows nothing of the secret.
func TestHandshakeWithAMirror(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		defer b.Close()
		conn := NewFrameConn(b)
		var g greeting
		if conn.Read(&g) == nil {
			_ = conn.Write(reply{Version: Version, Nonce: g.Nonce, Proof: prove([]byte("guess"), "worker", g.Nonce, g.Nonce)})
		}
	}()
	if _, err := Greet(NewFrameConn(a), []byte("secret")); !errors.Is(err, ErrOtherSecret) {
		t.Errorf("got %v", err)
	}
}

// Each side refuses another version, by its number.
func TestOtherVersions(t *testing.T) {
	a, b := net.Pipe()
	go func() {
		conn := NewFrameConn(b)
		var g greeting
		_ = conn.Read(&g)
		_ = conn.Write(json.RawMessage(`{"version":9,"newMember":1}`))
	}()
	_, err := Greet(NewFrameConn(a), nil)
	if !errors.Is(err, ErrOtherVersion) || !strings.Contains(err.Error(), "(9)") {
		t.Errorf("the daemon says %v", err)
	}
	a, b = net.Pipe()
	answered := make(chan error, 1)
	go func() { answered <- Answer(NewFrameConn(b), nil) }()
	conn := NewFrameConn(a)
	var r reply
	if err := errors.Join(conn.Write(json.RawMessage(`{"version":9,"newMember":1}`)), conn.Read(&r)); err != nil || r.Version != Version || r.Proof != nil {
		t.Errorf("the worker answers %+v (%v)", r, err)
	}
	if err := <-answered; err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("the worker says %v", err)
	}
}

// A folder that others can enter is refused. The path of a socket may be as long as it likes.
func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if HasFolder(dir) {
		t.Error("there is a folder")
	}
	folder, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	socket, err := folder.Listen("worker-1")
	if err != nil {
		t.Fatal(err)
	}
	conn, pid, err := folder.Dial("worker-1")
	if err != nil || pid != os.Getpid() {
		t.Fatalf("got process %d (%v)", pid, err)
	}
	_ = conn.Close()
	if names, err := folder.Names(); err != nil || len(names) != 1 || names[0] != "worker-1" {
		t.Errorf("the names are %q (%v)", names, err)
	}
	if err := errors.Join(unix.Shutdown(int(socket.Fd()), unix.SHUT_RDWR), socket.Close()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := folder.Dial("worker-1"); !errors.Is(err, ErrNobody) {
		t.Errorf("got %v, want ErrNobody", err)
	}
	folder.Remove("worker-1")
	if _, _, err := folder.Dial("worker-1"); !errors.Is(err, ErrNobody) {
		t.Errorf("got %v, want ErrNobody", err)
	}
	if err := os.Chmod(filepath.Join(dir, "workers"), 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(dir); err == nil || !strings.Contains(err.Error(), "mode 750") {
		t.Errorf("got %v", err)
	}
}

// Raw JSON without white space arrives as it was sent: daemon and worker compare it.
func TestRawJSONKeepsItsBytes(t *testing.T) {
	conn := &textConn{}
	raw := json.RawMessage(`{"a":"\u003c\u0026é\u2028","b":443.0,"c":[1e2,-0]}`)
	var m Running
	m.State.Routing = raw
	if err := NewFrameConn(conn).Write(Message{Running: &m}); err != nil {
		t.Fatal(err)
	}
	var back Message
	if err := connOf(conn.out.Bytes()).Read(&back); err != nil {
		t.Fatal(err)
	}
	if got := back.Running.State.Routing; string(got) != string(raw) {
		t.Errorf("%s came back as %s", raw, got)
	}
}

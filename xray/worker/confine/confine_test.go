package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const inside = "NODE_AGENT_TEST_CONFINED"

// TestMain runs the confined part in a process of its own: it can't be undone.
func TestMain(m *testing.M) {
	if dir := os.Getenv(inside); dir != "" {
		confined(dir)
		return
	}
	os.Exit(m.Run())
}

// confined confines this process and prints what it can still do.
func confined(dir string) {
	if err := DropNetAdmin(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	opened, err := os.OpenFile(filepath.Join(dir, "open"), os.O_RDWR, 0)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var leftOut []string
	by, err := Restrict(Paths{
		Read:    []string{filepath.Join(dir, "pages"), filepath.Join(dir, "gone"), filepath.Join(dir, "state"), filepath.Join(dir, "state", "below")},
		Sockets: []string{filepath.Join(dir, "sockets"), filepath.Join(dir, "open")},
		LeftOut: func(folder string, err error) {
			leftOut = append(leftOut, fmt.Sprintf("%s: %v", filepath.Base(folder), err))
		},
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	can := map[string]bool{}
	try := func(what string, do func() error) {
		done := make(chan error)
		go func() { done <- do() }() // some other thread
		can[what] = !errors.Is(<-done, fs.ErrPermission)
	}
	read := func(path string) func() error {
		return func() error { _, err := os.ReadFile(path); return err }
	}
	write := func(path string) func() error {
		return func() error { return os.WriteFile(path, []byte("x"), 0o600) }
	}
	// Anybody but the administrator of the network is refused.
	try("take an interface down", func() error {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		request, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(socket, unix.SIOCGIFFLAGS, request); err != nil {
			return err
		}
		return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request) // the same ones again
	})
	try("read the state", read(filepath.Join(dir, "state")))
	try("write the state", write(filepath.Join(dir, "state")))
	try("make a file", write(filepath.Join(dir, "made")))
	try("list the folder", func() error { _, err := os.ReadDir(dir); return err })
	try("list the root", func() error { _, err := os.ReadDir("/"); return err })
	try("read the environment of the parent", read(fmt.Sprintf("/proc/%d/environ", os.Getppid())))
	try("start a program", func() error { return exec.Command("/bin/true").Run() })
	try("signal the parent", func() error { return unix.Kill(os.Getppid(), 0) })
	try("read a page", read(filepath.Join(dir, "pages", "index.html")))
	try("write a page", write(filepath.Join(dir, "pages", "index.html")))
	try("read the resolver's configuration", read("/etc/resolv.conf"))
	try("read the kernel's backlog", read("/proc/sys/net/core/somaxconn"))
	try("write to what was open", func() error { _, err := opened.WriteString("x"); return err })
	try("signal itself", func() error { return unix.Kill(os.Getpid(), 0) })
	try("make a unix socket", func() error {
		l, err := net.Listen("unix", filepath.Join(dir, "sockets", "a"))
		if err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(dir, "sockets", "a"), filepath.Join(dir, "sockets", "b")); err != nil {
			return err
		}
		return errors.Join(os.Remove(filepath.Join(dir, "sockets", "b")), l.Close())
	})
	try("listen", func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		return l.Close()
	})
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"by": by, "can": can, "leftOut": leftOut})
}

// A confined process reads and writes nothing but what was named, what every worker reads, and what
// it has open. All of its threads are confined. A file that was named as a folder is left out, and
// told of.
func TestRestrict(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"pages", "sockets"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"state", "open", "pages/index.html"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), inside+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got struct {
		By      string
		Can     map[string]bool
		LeftOut []string
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.HasPrefix(got.By, "Landlock") {
		t.Skipf("NOT RUN: this kernel confines nothing: %s", got.By)
	}
	if want := []string{"state: not a directory", "below: not a directory", "open: not a directory"}; !slices.Equal(got.LeftOut, want) {
		t.Errorf("it has left out %q, want %q", got.LeftOut, want)
	}
	for what, want := range map[string]bool{
		"read the state": false, "write the state": false, "make a file": false, "list the folder": false, "list the root": false,
		"take an interface down":             false,
		"read the environment of the parent": false, "start a program": false, "write a page": false,
		"signal the parent": !strings.Contains(got.By, "signals"),

		"read a page": true, "read the resolver's configuration": true, "read the kernel's backlog": true,
		"write to what was open": true, "signal itself": true, "make a unix socket": true, "listen": true,
	} {
		if can, tried := got.Can[what]; !tried || can != want {
			t.Errorf("%s: %v, want %v (confined by %s)", what, can, want, got.By)
		}
	}
}

// The reason for a lack of Landlock says what to do.
func TestMissing(t *testing.T) {
	for err, says := range map[error]string{unix.ENOSYS: "5.13", unix.EOPNOTSUPP: "lsm=", unix.EPERM: "SystemCallFilter=", unix.EINVAL: "invalid argument"} {
		if got := missing(err); !strings.HasPrefix(got, "nothing: ") || !strings.Contains(got, says) {
			t.Errorf("%v: %q", err, got)
		}
	}
}

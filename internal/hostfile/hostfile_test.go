package hostfile

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/internal/testfiles"
)

const most = 1 << 10

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	testfiles.Write(t, path("good"), "contents")
	testfiles.Link(t, path("good"), path("link"))
	testfiles.Write(t, path("large"), strings.Repeat("x", most+1))
	if err := syscall.Mkfifo(path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", path("zero")); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", path("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	r := New(most)
	for name, want := range map[string]string{
		"good": "", "link": "", "large": "it has 1025 bytes; want 1024 at most", "pipe": "it is a named pipe",
		"zero": "it is a device", ".": "it is a folder", "socket": "no such device or address", "missing": "no such file",
	} {
		contents, err := r.Read(path(name))
		switch {
		case want == "" && (err != nil || string(contents) != "contents"):
			t.Errorf("%s: %q, %v", name, contents, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), filepath.Clean(path(name)))):
			t.Errorf("%s: error %v, want one with %q and the path", name, err, want)
		}
	}
	if _, err := r.Read(path("missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file is %v", err)
	}
	if _, err := New(16).Read("/proc/self/environ"); len(os.Environ()) > 1 && err == nil {
		t.Error("a file whose size is told as zero was read without a bound")
	}
}

// A file on a disk that hangs holds up its reader once, and those of other files shortly.
func TestReadOfWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		r := New(most)
		r.open = func(path string) (file, error) {
			if strings.HasPrefix(path, "/hangs/") {
				<-answer
			}
			return nil, fs.ErrNotExist
		}
		took := func(path, want string, atMost time.Duration) {
			t.Helper()
			began := time.Now()
			_, err := r.Read(path)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", path, err, want)
			}
			if took := time.Since(began); took > atMost {
				t.Errorf("%s took %s", path, took)
			}
		}
		took("/hangs/0", "did not answer within 5s", within)
		took("/hangs/0", "has not answered the last read yet", 0)
		for i := range hangingAtMost - 1 {
			took(fmt.Sprintf("/hangs/%d", 1+i), "did not answer", hurried)
		}
		took("/hangs/more", "64 other files hang", 0)
		close(answer)
		synctest.Wait()
		took("/hangs/0", "file does not exist", 0)
		if len(r.hanging) != 0 {
			t.Errorf("%d files hang", len(r.hanging))
		}
	})
}

// A file that answers at the moment when its time is over is not taken for one that hangs for ever.
func TestReadThatAnswersInTheLastMoment(t *testing.T) {
	for range 2000 {
		synctest.Test(t, func(t *testing.T) {
			r := New(most)
			r.open = func(string) (file, error) {
				time.Sleep(within)
				return nil, fs.ErrNotExist
			}
			_, _ = r.Read("/late")
			synctest.Wait()
			if len(r.hanging) != 0 {
				t.Fatal("the file that has answered is taken for one that hangs")
			}
		})
	}
}

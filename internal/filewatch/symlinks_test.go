package filewatch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nodeagent/internal/testfiles"
)

func TestSymlinkDirs(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	testfiles.Write(t, in("plain/file"), "")
	testfiles.Write(t, in("archive/site/cert1.pem"), "")
	testfiles.Link(t, "../../archive/site/cert1.pem", in("live/site/cert.pem"))
	testfiles.Write(t, in("mount/..v1/tls.crt"), "")
	testfiles.Link(t, "..v1", in("mount/..data"))
	testfiles.Link(t, "..data/tls.crt", in("mount/tls.crt"))
	testfiles.Link(t, in("live"), in("other/live"))
	testfiles.Link(t, "loop", in("loops/loop"))
	testfiles.Link(t, "b/x", in("loops/a"))
	testfiles.Link(t, "a/x", in("loops/b"))
	testfiles.Link(t, "../gone/file", in("dangling/file"))
	for _, test := range []struct{ path, want string }{
		{"plain/file", "plain"},
		{"plain/../plain/./file", "plain"},
		{"plain/missing", "plain"},
		{"missing/folder/file", ""},
		{"plain/file/no folder", "plain"},
		{"live/site/cert.pem", "live/site archive/site"},
		{"mount/tls.crt", "mount mount/..v1"},
		{"other/live/site/cert.pem", "other live/site archive/site"},
		{"other/live/../plain/file", "other plain"}, // the kernel follows the link before "..", too
		{"loops/loop", "loops"},
		{"loops/a", "loops"},
		{"dangling/file", "dangling "},
	} {
		var want []string
		for name := range strings.SplitSeq(test.want, " ") {
			want = append(want, in(name))
		}
		if got := symlinkDirs(dir + "/" + test.path); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", test.path, got, want)
		}
	}
}

// A change is seen in each folder on the way to a file.
func TestLinksAreFollowed(t *testing.T) {
	type change struct {
		name string
		make func(in func(string) string)
		want string
	}
	for _, test := range []struct {
		name, file string
		changes    []change
	}{
		{"a link into another folder", "link/cert.pem", []change{
			{"link", func(in func(string) string) {
				testfiles.Write(t, in("acme/cert.pem"), "1")
				testfiles.Link(t, in("acme/cert.pem"), in("link/cert.pem"))
			}, "1"},
			{"in place", func(in func(string) string) { testfiles.Write(t, in("acme/cert.pem"), "2") }, "2"},
			{"by rename", func(in func(string) string) { testfiles.Replace(t, in("acme/cert.pem"), []byte("3")) }, "3"},
		}},
		{"a folder on the way turns", "mount/live/cert.pem", []change{
			{"link", func(in func(string) string) {
				testfiles.Write(t, in("one/cert.pem"), "1")
				testfiles.Write(t, in("two/cert.pem"), "2")
				testfiles.Link(t, "../one", in("turn/now"))
				testfiles.Link(t, "../turn/now", in("mount/live"))
			}, "1"},
			{"turn", func(in func(string) string) { testfiles.Link(t, "../two", in("turn/now")) }, "2"},
			{"where it leads now", func(in func(string) string) { testfiles.Write(t, in("two/cert.pem"), "3") }, "3"},
		}},
		{"folders come and go", "a/b/c/cert.pem", []change{
			{"come", func(in func(string) string) { testfiles.Write(t, in("a/b/c/cert.pem"), "1") }, "1"},
			{"in place", func(in func(string) string) { testfiles.Write(t, in("a/b/c/cert.pem"), "2") }, "2"},
			{"go", func(in func(string) string) { _ = os.RemoveAll(in("a")) }, "none"},
			{"come back", func(in func(string) string) { testfiles.Write(t, in("a/b/c/cert.pem"), "3") }, "3"},
			{"move away", func(in func(string) string) { _ = os.Rename(in("a/b/c"), in("old")) }, "none"},
			{"come anew", func(in func(string) string) { testfiles.Write(t, in("a/b/c/cert.pem"), "4") }, "4"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			seen := startWatch(t, filepath.Join(dir, test.file))
			for _, c := range test.changes {
				c.make(func(name string) string { return filepath.Join(dir, name) })
				awaitSeen(t, seen, c.name, c.want)
			}
		})
	}
}

// A folder is watched as long as it leads to the file of an entry.
func TestWatchesEnd(t *testing.T) {
	dir := t.TempDir()
	testfiles.Write(t, filepath.Join(dir, "one/cert.pem"), "")
	testfiles.Write(t, filepath.Join(dir, "two/cert.pem"), "")
	testfiles.Link(t, "../one/cert.pem", filepath.Join(dir, "live/cert.pem"))
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer w.watcher.Close()
	go w.listen()
	has := func(want ...string) {
		t.Helper()
		var got []string
		for _, folder := range w.watcher.WatchList() {
			got = append(got, filepath.Base(folder))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("watches %q, want %q", got, want)
		}
	}
	w.Add("link", func() {}, filepath.Join(dir, "live/cert.pem"))
	has("live", "one")
	w.Add("file", func() {}, filepath.Join(dir, "one/cert.pem"))
	testfiles.Link(t, "../two/cert.pem", filepath.Join(dir, "live/cert.pem"))
	w.scan(nil)
	has("live", "one", "two")
	w.Remove("file")
	has("live", "two")
	w.Remove("link")
	has()
}

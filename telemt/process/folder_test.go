package process

import (
	"os"
	"testing"
)

func TestFolderNamesStayInside(t *testing.T) {
	for tag, want := range map[string]string{"mtproto-7": "/s/mtproto-7", "../../etc": "/s/%2e.%2f..%2fetc", "a/b": "/s/a%2fb", "..": "/s/%2e.", "a!!": "/s/a%21%21", "a!21": "/s/a%2121"} {
		if got := string(FolderOf("/s", tag)); got != want {
			t.Errorf("folder of %q is %q, want %q", tag, got, want)
		}
	}
	f := Folder(t.TempDir())
	if err := f.Make(); err != nil {
		t.Fatal(err)
	}
	if err := f.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(f.Config()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the configuration is %v, %v; want it readable by its owner alone", info.Mode(), err)
	}
}

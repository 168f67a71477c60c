package process

import (
	"os"
	"slices"
	"testing"
)

func TestFolderNamesStayInside(t *testing.T) {
	for tag, want := range map[string]string{"mtproto-7": "/s/mtproto-7", "../../etc": "/s/%2e.%2f..%2fetc", "a/b": "/s/a%2fb", "..": "/s/%2e.", "a!!": "/s/a%21%21", "a!21": "/s/a%2121"} {
		if got := string(FolderOf("/s", tag)); got != want {
			t.Errorf("folder of %q is %q, want %q", tag, got, want)
		}
	}
}

func testFolder(t *testing.T) Folder {
	t.Helper()
	f := Folder(t.TempDir())
	if err := f.Make(); err != nil {
		t.Fatal(err)
	}
	return f
}

// The configuration has secrets: nobody but its owner may read it, even where the file
// before it was readable. No other file with its text is left.
func TestConfigurationIsPrivate(t *testing.T) {
	f := testFolder(t)
	for _, text := range []string{"first", "second"} {
		if err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(f.Config())
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("the configuration has the mode %v, want it readable by its owner only", info.Mode())
		}
		if have, err := os.ReadFile(f.Config()); err != nil || string(have) != text {
			t.Errorf("the configuration is %q, %v; want %q", have, err, text)
		}
		if err := os.Chmod(f.Config(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.CheckSpace(1 << 20); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(string(f))
	if err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v, %v; want config.toml and data", entries, err)
	}
}

func TestDrifted(t *testing.T) {
	const text = "[access.users]\nalice = '0'\n"
	f := testFolder(t)
	wantDrift := func(drifted bool, users ...string) {
		t.Helper()
		gotDrifted, got := f.Drifted([]byte(text))
		slices.Sort(got)
		if gotDrifted != drifted || !slices.Equal(got, users) {
			t.Errorf("drifted is %v with the users %v, want %v with %v", gotDrifted, got, drifted, users)
		}
	}
	wantDrift(true) // there is no file
	for _, c := range []struct {
		text    string
		drifted bool
		users   []string
	}{
		{text, false, nil},
		{text + "stranger = '1'\n", true, []string{"alice", "stranger"}},
		{"not TOML", true, nil},
	} {
		if err := f.Write([]byte(c.text)); err != nil {
			t.Fatal(err)
		}
		wantDrift(c.drifted, c.users...)
	}
}

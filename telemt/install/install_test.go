package install

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func program(version string) []byte { return []byte("#!/bin/sh\necho telemt " + version + "\n") }

func sum(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

func archive(t *testing.T, name string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	all := tar.NewWriter(zip)
	for _, file := range []struct {
		name string
		data []byte
	}{{"README", []byte("read me")}, {name, data}} {
		if err := all.WriteHeader(&tar.Header{Name: file.name, Mode: 0o644, Size: int64(len(file.data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := all.Write(file.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := all.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %q (%v), want %q", path, got, err, want)
	}
}

// A file, and then an archive from a URL: the telemt before is kept each time.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "bin", "telemt")
	file := filepath.Join(dir, "download")
	if err := os.WriteFile(file, program("3.4.22"), 0o600); err != nil {
		t.Fatal(err)
	}
	done, err := Install(t.Context(), Options{Source: file, SHA256: strings.ToUpper(sum(program("3.4.22"))), Target: target})
	if err != nil || done != (Installed{"v3.4.22", ""}) {
		t.Fatalf("installed %+v, %v", done, err)
	}
	wantFile(t, target, program("3.4.22"))
	for i, version := range []string{"3.4.23", "3.4.26"} {
		packed := archive(t, "telemt-"+version+"/telemt", program(version))
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(packed) }))
		done, err := Install(t.Context(), Options{Source: server.URL + "/telemt.tar.gz", SHA256: sum(packed), Target: target})
		server.Close()
		if err != nil || done != (Installed{"v" + version, target + previous}) {
			t.Fatalf("installed %+v, %v", done, err)
		}
		wantFile(t, target, program(version))
		wantFile(t, target+previous, program([]string{"3.4.22", "3.4.23"}[i]))
	}
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the service's user can't run it: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(target))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v is left in the folder (%v)", entries, err)
	}
}

// A program that is refused changes nothing. One with a wrong checksum is not run either.
func TestInstallRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		sum  string
		want string
	}{
		"another sum":             {append(program("3.4.23"), "touch ran\n"...), sum(nil), "it is another file"},
		"no sum":                  {program("3.4.23"), "", "is no SHA-256"},
		"a short sum":             {program("3.4.23"), "abcd", "is no SHA-256"},
		"a release that stalls":   {program("3.4.25"), sum(program("3.4.25")), "telemt 3.4.25 is known to be bad: it stalls on large transfers"},
		"another one that stalls": {program("3.4.24"), sum(program("3.4.24")), "telemt 3.4.24 is known to be bad"},
		"an old release":          {program("3.4.13"), sum(program("3.4.13")), "is too old"},
		"no telemt":               {[]byte("#!/bin/sh\necho curl 8.0\n"), sum([]byte("#!/bin/sh\necho curl 8.0\n")), "is not telemt"},
		"no program":              {[]byte("<html>"), sum([]byte("<html>")), "telemt does not run"},
		"an archive without it":   {archive(t, "other", nil), sum(archive(t, "other", nil)), "the archive has no file telemt"},
		"half an archive":         {archive(t, "telemt", program("3.4.23"))[:60], sum(archive(t, "telemt", program("3.4.23"))[:60]), "read "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("file", c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile("telemt", program("3.4.20"), 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := Install(t.Context(), Options{Source: "file", SHA256: c.sum, Target: "telemt"})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it says %v, want %q", err, c.want)
			}
			wantFile(t, "telemt", program("3.4.20"))
			if entries, err := os.ReadDir("."); err != nil || len(entries) != 2 {
				t.Errorf("%v is left in the folder (%v)", entries, err)
			}
		})
	}
}

func TestInstallAnyway(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("file", program("3.4.25"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(t.Context(), Options{Source: "file", SHA256: sum(program("3.4.25")), Target: "telemt", Anyway: true}); err != nil {
		t.Error(err)
	}
}

package certs

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A renewed certificate is served without a restart; a broken one is told, once, and the
// one before goes on.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	certPath, keyPath := filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
	renew := func(age time.Duration) {
		t.Helper()
		if err := create(certPath, keyPath); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{certPath, keyPath} { // another time also on a coarse clock
			if err := os.Chtimes(path, time.Now().Add(age), time.Now().Add(age)); err != nil {
				t.Fatal(err)
			}
		}
	}
	renew(-time.Hour)
	var told []error
	files, err := Watch(certPath, keyPath, func(err error) { told = append(told, err) })
	if err != nil {
		t.Fatal(err)
	}
	pin := func() string {
		t.Helper()
		files.looked = time.Time{}
		cert, err := files.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pinOf(*cert)
	}
	first := pin()
	renew(-time.Minute)
	second := pin()
	if second == first {
		t.Error("the renewed certificate is not served")
	}
	if err := os.WriteFile(certPath, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if pin() != second {
			t.Error("a broken certificate took the place of the one before")
		}
	}
	if len(told) != 1 {
		t.Errorf("a broken certificate was told %d times: %v", len(told), told)
	}
	renew(time.Minute)
	if pin() == second {
		t.Error("the certificate after the broken one is not served")
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nodeagent/coreapi"
)

// Names that came over the network lead nowhere else, and no error has the token.
func TestExportedNames(t *testing.T) {
	folder := t.TempDir()
	for _, of := range []coreapi.StaticFiles{
		{Token: "../up"},
		{Token: ""},
		{Token: ".hidden"},
		{Token: "a/b"},
		{Token: "token-1", Files: []coreapi.StaticFile{{Name: "../../etc"}}},
		{Token: "token-1", Files: []coreapi.StaticFile{{Name: ".htaccess"}}},
		{Token: "token-1", Files: []coreapi.StaticFile{{Name: "links\x00"}}},
	} {
		var e exported
		if err := e.write(folder, of); err == nil || strings.Contains(err.Error(), "token-1") {
			t.Errorf("%+v: %v", of, err)
		}
	}
	if err := os.Mkdir(filepath.Join(folder, "token-2"), 0o500); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "token-2", "links"), 0o700); err != nil && os.Getuid() == 0 {
		t.Fatal(err)
	}
	var e exported
	if err := e.write(folder, coreapi.StaticFiles{ID: 7, Token: "token-2", Files: []coreapi.StaticFile{{Name: "links"}}}); err == nil || strings.Contains(err.Error(), "token-2") {
		t.Errorf("a file that can't be written: %v", err)
	}
}

// The new folder takes the place of the old one in one step, and an old one that is missing is no error.
func TestExchange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cdn")
	for _, text := range []string{"one", "two", "three"} {
		fresh := dir + ".new"
		if err := os.Mkdir(fresh, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(fresh, exportMark), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := replaceable(dir); err != nil {
			t.Fatal(err)
		}
		if err := exchange(fresh, dir); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, exportMark)); err != nil || string(got) != text {
			t.Errorf("the folder has %q, %v, want %q", got, err, text)
		}
		if err := os.RemoveAll(fresh); err != nil {
			t.Fatal(err)
		}
	}
}

// A link to a folder stays, and no files of before stay in that folder. A link that leads nowhere is refused.
func TestExportThroughLink(t *testing.T) {
	root := t.TempDir()
	real, link := filepath.Join(root, "real"), filepath.Join(root, "link")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	if got, err := folderOf(link); err == nil || !strings.Contains(err.Error(), link) {
		t.Errorf("a link that leads nowhere is %q, %v", got, err)
	}
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{real, link} {
		if got, err := folderOf(dir); err != nil || got != real {
			t.Errorf("%s is %q, %v", dir, got, err)
		}
	}
	if got, err := folderOf(filepath.Join(root, "new")); err != nil || got != filepath.Join(root, "new") {
		t.Errorf("a folder that is missing is %q, %v", got, err)
	}
}

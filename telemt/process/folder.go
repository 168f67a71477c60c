package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/pelletier/go-toml/v2"
)

const configName = "config.toml"

// Folder is what one inbound has on the disk: telemt's configuration, and what
// telemt itself keeps in data.
type Folder string

// Config is the path of telemt's configuration.
func (f Folder) Config() string { return filepath.Join(string(f), configName) }
func (f Folder) data() string   { return filepath.Join(string(f), "data") }

// FolderOf is the inbound's, below the state folder. A tag is Core's text: what
// could lead elsewhere is replaced.
func FolderOf(stateDir, tag string) Folder {
	return Folder(filepath.Join(stateDir, unsafeInName.ReplaceAllStringFunc(tag, func(s string) string { return fmt.Sprintf("%%%x", s) })))
}

var unsafeInName = regexp.MustCompile(`^\.|[^A-Za-z0-9_.-]`)

// Remove removes the folder with all that is in it.
func (f Folder) Remove() error {
	if err := os.RemoveAll(string(f)); err != nil {
		return fmt.Errorf("remove telemt's folder: %w", err)
	}
	return nil
}

// Make makes the folder where it is not there.
func (f Folder) Make() error {
	if err := os.MkdirAll(f.data(), 0o700); err != nil {
		return fmt.Errorf("make telemt's folder: %w", err)
	}
	return nil
}

// CheckSpace tells whether a file of so many bytes could be written.
func (f Folder) CheckSpace(size int) error {
	if err := f.Make(); err != nil {
		return err
	}
	probe, err := os.CreateTemp(string(f), configName+".*")
	if err != nil {
		return fmt.Errorf("write telemt's configuration: %w", err)
	}
	defer os.Remove(probe.Name())
	_, err = probe.Write(make([]byte, size))
	if err = errors.Join(err, probe.Sync(), probe.Close()); err != nil {
		return fmt.Errorf("write telemt's configuration: %w", err)
	}
	return nil
}

// Write puts the configuration in place in one step, for telemt may read it at
// any moment: a file that is empty or cut would let in a user with a secret of
// zeros.
func (f Folder) Write(config []byte) (err error) {
	temporary, err := os.CreateTemp(string(f), configName+".*") // 0600
	if err != nil {
		return fmt.Errorf("write telemt's configuration: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary.Name())
		}
	}()
	_, err = temporary.Write(config)
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return fmt.Errorf("write telemt's configuration: %w", err)
	}
	if err := os.Rename(temporary.Name(), f.Config()); err != nil {
		return fmt.Errorf("write telemt's configuration: %w", err)
	}
	return nil
}

// Drifted tells whether somebody else changed the configuration, and which
// users their file names.
func (f Folder) Drifted(written []byte) (drifted bool, users []string) {
	have, err := os.ReadFile(f.Config())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil || bytes.Equal(have, written):
		return false, nil
	}
	var file struct {
		Access struct {
			Users map[string]any `toml:"users"`
		} `toml:"access"`
	}
	if toml.Unmarshal(have, &file) == nil {
		for name := range file.Access.Users {
			users = append(users, name)
		}
	}
	return true, users
}

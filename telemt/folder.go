package telemt

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

// folder is what one inbound has on the disk: telemt's configuration, and what
// telemt itself keeps in data.
type folder string

func (f folder) config() string { return filepath.Join(string(f), configName) }
func (f folder) data() string   { return filepath.Join(string(f), "data") }

// folderOf is the inbound's, below the state folder. A tag is Core's text: what
// could lead elsewhere is replaced.
func folderOf(stateDir, tag string) folder {
	return folder(filepath.Join(stateDir, unsafeInName.ReplaceAllStringFunc(tag, func(s string) string { return fmt.Sprintf("%%%x", s) })))
}

var unsafeInName = regexp.MustCompile(`^\.|[^A-Za-z0-9_.-]`)

func (f folder) remove() error {
	if err := os.RemoveAll(string(f)); err != nil {
		return fmt.Errorf("remove telemt's folder: %w", err)
	}
	return nil
}

func (f folder) make() error {
	if err := os.MkdirAll(f.data(), 0o700); err != nil {
		return fmt.Errorf("make telemt's folder: %w", err)
	}
	return nil
}

// hasRoom tells whether a file of so many bytes could be written.
func (f folder) hasRoom(size int) error {
	if err := f.make(); err != nil {
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

// write puts the configuration in place in one step, for telemt may read it at
// any moment: a file that is empty or cut would let in a user with a secret of
// zeros.
func (f folder) write(config []byte) (err error) {
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
	if err := os.Rename(temporary.Name(), f.config()); err != nil {
		return fmt.Errorf("write telemt's configuration: %w", err)
	}
	return nil
}

// drifted tells whether somebody else changed the configuration, and which
// users their file names.
func (f folder) drifted(written []byte) (drifted bool, users []string) {
	have, err := os.ReadFile(f.config())
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

package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/google/renameio/v2"
	"github.com/pelletier/go-toml/v2"
)

const configName = "config.toml"

// Folder is the path of one inbound's folder. It has telemt's configuration, and a folder
// "data" for the files that telemt itself writes.
type Folder string

// Config returns the path of telemt's configuration.
func (f Folder) Config() string { return filepath.Join(string(f), configName) }

func (f Folder) data() string { return filepath.Join(string(f), "data") }

// FolderOf returns the folder of the inbound with that tag, below stateDir. The tag comes
// from Core: characters that could lead out of stateDir are replaced.
func FolderOf(stateDir, tag string) Folder {
	return Folder(filepath.Join(stateDir, unsafeInName.ReplaceAllStringFunc(tag, func(s string) string { return fmt.Sprintf("%%%x", s) })))
}

var unsafeInName = regexp.MustCompile(`^\.|[^A-Za-z0-9_.-]`)

// Remove removes the folder and everything in it.
func (f Folder) Remove() error {
	if err := os.RemoveAll(string(f)); err != nil {
		return fmt.Errorf("remove telemt's folder: %w", err)
	}
	return nil
}

// Make makes the folder, if it does not exist.
func (f Folder) Make() error {
	if err := os.MkdirAll(f.data(), 0o700); err != nil {
		return fmt.Errorf("make telemt's folder: %w", err)
	}
	return nil
}

// CheckSpace returns an error if a file of size bytes can't be written to the folder.
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

// usedName is the file with what users have moved, for their quotas.
const usedName = "used.json"

// ReadUsed returns how many bytes each user has moved, by name; nothing where that was not kept,
// or cannot be read.
func (f Folder) ReadUsed() map[string]uint64 {
	used := map[string]uint64{}
	raw, err := os.ReadFile(filepath.Join(string(f), usedName))
	if err != nil || json.Unmarshal(raw, &used) != nil || used == nil {
		return map[string]uint64{}
	}
	return used
}

// WriteUsed keeps what ReadUsed returns.
func (f Folder) WriteUsed(used map[string]uint64) error {
	raw, err := json.Marshal(used)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(string(f), usedName), raw, 0o600); err != nil {
		return fmt.Errorf("write what counts for quotas: %w", err)
	}
	return nil
}

// recordName is the file with what the next daemon has to know of the telemt that runs.
const recordName = "running.json"

// ReadRecord returns what WriteRecord has written.
func (f Folder) ReadRecord() ([]byte, error) {
	raw, err := os.ReadFile(filepath.Join(string(f), recordName))
	if err != nil {
		return nil, fmt.Errorf("read what is known of the telemt that runs: %w", err)
	}
	return raw, nil
}

// WriteRecord keeps what the next daemon has to know, readable by the owner only.
func (f Folder) WriteRecord(raw []byte) error {
	file, err := renameio.NewPendingFile(filepath.Join(string(f), recordName), renameio.WithTempDir(string(f)), renameio.WithPermissions(0o600))
	if err != nil {
		return fmt.Errorf("write what is known of the telemt that runs: %w", err)
	}
	defer file.Cleanup() //nolint:errcheck // it does nothing once the file is in place
	if _, err := file.Write(raw); err != nil {
		return fmt.Errorf("write what is known of the telemt that runs: %w", err)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write what is known of the telemt that runs: %w", err)
	}
	return nil
}

// Write replaces the configuration in one step, readable by its owner only. telemt may
// read the file at any moment, and an empty or incomplete one would make telemt add a user
// with a secret of zeros.
func (f Folder) Write(config []byte) error {
	// Not renameio.WriteFile: it would keep the permissions of the old file.
	file, err := renameio.NewPendingFile(f.Config(), renameio.WithTempDir(string(f)), renameio.WithPermissions(0o600))
	if err != nil {
		return fmt.Errorf("write telemt's configuration: %w", err)
	}
	defer file.Cleanup() //nolint:errcheck // it does nothing once the file is in place
	if _, err := file.Write(config); err != nil {
		return fmt.Errorf("write telemt's configuration: %w", err)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write telemt's configuration: %w", err)
	}
	return nil
}

// Heading is the first line of the configuration, with the number of the change.
const Heading = "# Written by node-agent, which writes it again when it is edited. Change %d."

// Written returns the configuration on the disk and the number in its heading; nothing where there is
// none.
func (f Folder) Written() (config []byte, number int) {
	config, err := os.ReadFile(f.Config())
	if err != nil {
		return nil, 0
	}
	_, _ = fmt.Sscanf(string(config[:min(len(config), 200)]), Heading, &number)
	return config, number
}

// Drifted reports whether the configuration on the disk is not the one that was written.
// users are the user names in it then, if it can be read.
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

package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"github.com/google/renameio/v2"
)

// parsedFile is the name of the file, beside the store's, that has the current configuration as it was
// parsed.
const parsedFile = "parsed"

// ParsedKey identifies what SetParsed keeps: of which document it was made, and by which build.
type ParsedKey [sha256.Size]byte

// ParsedKeyOf returns the key of the document body, as it is stored, for a build of node-agent.
func ParsedKeyOf(build string, body Packed) ParsedKey {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%d %s\n", len(build), build)
	_, _ = h.Write(body)
	return ParsedKey(h.Sum(nil))
}

// SetParsed keeps the form into which the current configuration was parsed, in the place of the one
// before. It is a copy of what the store has, in a file of its own (mode 0600): it may be lost, and is
// not written to the disk at once.
func (s *Store) SetParsed(key ParsedKey, data []byte) error {
	head := append(bytes.Clone(key[:]), make([]byte, 8)...)
	binary.BigEndian.PutUint64(head[len(key):], xxhash.Sum64(data))
	dir := filepath.Dir(s.db.Path())
	file, err := renameio.NewPendingFile(filepath.Join(dir, parsedFile), renameio.WithTempDir(dir), renameio.WithPermissions(0o600))
	if err != nil {
		return fmt.Errorf("keep the parsed configuration: %w", err)
	}
	defer file.Cleanup() //nolint:errcheck // an unfinished file is in nobody's way
	for _, part := range [][]byte{head, data} {
		if _, err := file.Write(part); err != nil {
			return fmt.Errorf("keep the parsed configuration: %w", err)
		}
	}
	if err := os.Rename(file.Name(), filepath.Join(dir, parsedFile)); err != nil {
		return fmt.Errorf("keep the parsed configuration: %w", err)
	}
	return nil
}

// Parsed returns what SetParsed has kept last in the state folder dir, and its key; nil where there is
// nothing, or where it is damaged. The store need not be open.
func Parsed(dir string) (key ParsedKey, data []byte) {
	data, err := os.ReadFile(filepath.Join(dir, parsedFile))
	if err != nil || len(data) < len(key)+8 {
		return key, nil
	}
	head, data := data[:len(key)+8], data[len(key)+8:]
	if xxhash.Sum64(data) != binary.BigEndian.Uint64(head[len(key):]) {
		return key, nil
	}
	return ParsedKey(head[:len(key)]), data
}

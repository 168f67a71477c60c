package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/cespare/xxhash/v2"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// parsedFile is the name of the file, beside the store's, that has the current configuration as it was
// parsed.
const parsedFile = "parsed"

// ParsedKey identifies what SetParsed keeps: which build has made it, and of which document. The zero
// value is the key of nothing.
type ParsedKey struct{ build, document [sha256.Size]byte }

// ParsedKeyOf returns the key of the document body, as it is stored, for a build of node-agent.
func ParsedKeyOf(build string, body Packed) ParsedKey {
	return ParsedKey{sha256.Sum256([]byte(build)), sha256.Sum256(body)}
}

// parsedHeadSize is the size of the head in bytes: the two hashes of the key, and the checksum of the data.
const parsedHeadSize = 2*sha256.Size + 8

// SetParsed keeps the form into which the current configuration was parsed, in the place of the one
// before. It is a copy of what the store has, in a file of its own (mode 0600): it may be lost, and is
// not written to the disk at once.
func (s *Store) SetParsed(key ParsedKey, data []byte) error {
	head := make([]byte, 0, parsedHeadSize)
	head = append(append(head, key.build[:]...), key.document[:]...)
	head = binary.BigEndian.AppendUint64(head, xxhash.Sum64(data))
	dir := filepath.Dir(s.db.Path())
	file, err := newPending(dir, parsedFile)
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

// newPending makes a file in dir that takes the place of the file name once it is written.
func newPending(dir, name string) (*renameio.PendingFile, error) {
	return renameio.NewPendingFile(filepath.Join(dir, name), renameio.WithTempDir(dir), renameio.WithPermissions(0o600))
}

// Unfinished returns the files in the state folder dir that a process was killed over while it wrote them.
func Unfinished(dir string) []string {
	var all []string
	for _, name := range []string{parsedFile, elementsFile} {
		files, _ := filepath.Glob(filepath.Join(dir, "."+name+"[0-9]*")) // the pattern is valid
		all = append(all, files...)
	}
	return all
}

// ReadParsed calls read with what SetParsed has kept last in the state folder dir, and its key. It returns
// false, and may not have called read, where there is nothing, where it is damaged, or where another build has
// made it, which may have written other things in other places. The store need not be open. data is valid
// until read returns: it is the file's mapping, since a copy of it takes longer than to read it.
func ReadParsed(dir, build string, read func(key ParsedKey, data []byte)) (whole bool) {
	file, err := os.Open(filepath.Join(dir, parsedFile))
	if err != nil {
		return false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() < parsedHeadSize || info.Size() != int64(int(info.Size())) {
		return false
	}
	all, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return false
	}
	defer unix.Munmap(all) //nolint:errcheck // it is a mapping
	// The kernel raises a signal for a page that it can't read.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			whole = false
		}
	}()
	head, data := all[:parsedHeadSize], all[parsedHeadSize:]
	made, head := head[:sha256.Size], head[sha256.Size:]
	document, sum := head[:sha256.Size], head[sha256.Size:]
	if of := sha256.Sum256([]byte(build)); !bytes.Equal(made, of[:]) || xxhash.Sum64(data) != binary.BigEndian.Uint64(sum) {
		return false
	}
	read(ParsedKey{[sha256.Size]byte(made), [sha256.Size]byte(document)}, data)
	return true
}

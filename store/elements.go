package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
)

// elementsFile is the name of the file, beside the store's, that has the hashes of the elements of a
// configuration. Its parts are
//
//	elementsMagic, and the length of the head, four bytes, big-endian
//	the head
//	the data
//	xxHash64 of all that, eight bytes, big-endian
const elementsFile = "elements"

// elementsMagic begins the file, and names its layout.
const elementsMagic = "elements1\n"

// elementsFixed is how many bytes stand before the head.
const elementsFixed = len(elementsMagic) + 4

// Elements is the file that SetElements has kept last, to be read. A later one does not change it.
type Elements struct {
	Head []byte
	data *io.SectionReader
	file *os.File
}

// Size is how many bytes the data has.
func (e *Elements) Size() int64 { return e.data.Size() }

// ReadAt reads data.
func (e *Elements) ReadAt(into []byte, offset int64) (int, error) { return e.data.ReadAt(into, offset) }

// Close closes the file.
func (e *Elements) Close() error { return e.file.Close() }

// SetElements keeps the data that write writes, behind a head, in the place of what was kept before, and
// returns it. The file has mode 0600, may be lost, and is not written to the disk at once.
func (s *Store) SetElements(head []byte, write func(io.Writer) error) (_ *Elements, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep the hashes of the configuration: %w", err)
		}
	}()
	dir := filepath.Dir(s.db.Path())
	file, err := newPending(dir, elementsFile)
	if err != nil {
		return nil, err
	}
	defer file.Cleanup() //nolint:errcheck // an unfinished file is in nobody's way
	buffered := bufio.NewWriterSize(file, 64<<10)
	sum := xxhash.New()
	both := io.MultiWriter(buffered, sum)
	fixed := binary.BigEndian.AppendUint32([]byte(elementsMagic), uint32(len(head)))
	if _, err := both.Write(append(fixed, head...)); err != nil {
		return nil, err
	}
	if err := write(both); err != nil {
		return nil, err
	}
	if _, err := buffered.Write(binary.BigEndian.AppendUint64(nil, sum.Sum64())); err != nil {
		return nil, err
	}
	if err := buffered.Flush(); err != nil {
		return nil, err
	}
	read, err := os.Open(file.Name())
	if err != nil {
		return nil, err
	}
	if err := os.Rename(file.Name(), filepath.Join(dir, elementsFile)); err != nil {
		return nil, errors.Join(err, read.Close())
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, read.Close())
	}
	return newElements(read, head, size), nil
}

func newElements(file *os.File, head []byte, size int64) *Elements {
	begin := int64(elementsFixed + len(head))
	return &Elements{Head: head, file: file, data: io.NewSectionReader(file, begin, size-begin-8)}
}

// Elements returns what SetElements has kept last; nil where there is nothing, or where it is damaged.
func (s *Store) Elements() *Elements {
	file, err := os.Open(filepath.Join(filepath.Dir(s.db.Path()), elementsFile))
	if err != nil {
		return nil
	}
	if head, size, ok := checkElements(file); ok {
		return newElements(file, head, size)
	}
	_ = file.Close() // it was only read
	return nil
}

// checkElements returns the head of a file that is not damaged, and the size of the file.
func checkElements(file *os.File) (head []byte, size int64, ok bool) {
	info, err := file.Stat()
	if err != nil || info.Size() < int64(elementsFixed+8) {
		return nil, 0, false
	}
	size = info.Size()
	fixed := make([]byte, elementsFixed)
	if _, err := file.ReadAt(fixed, 0); err != nil || string(fixed[:len(elementsMagic)]) != elementsMagic {
		return nil, 0, false
	}
	n := int64(binary.BigEndian.Uint32(fixed[len(elementsMagic):]))
	if n > size-int64(elementsFixed+8) {
		return nil, 0, false
	}
	sum, want := xxhash.New(), make([]byte, 8)
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, io.NewSectionReader(file, 0, size-8), make([]byte, 64<<10)); err != nil {
		return nil, 0, false
	}
	if _, err := file.ReadAt(want, size-8); err != nil || binary.BigEndian.Uint64(want) != sum.Sum64() {
		return nil, 0, false
	}
	head = make([]byte, n)
	_, err = file.ReadAt(head, int64(elementsFixed))
	return head, size, err == nil
}

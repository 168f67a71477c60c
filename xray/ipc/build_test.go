package ipc

import (
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A page of the program that can't be read ends no process: the sum of a mapping says that it has none.
func TestSumOfAMappingThatEnds(t *testing.T) {
	table := crc32.MakeTable(crc32.Castagnoli)
	content := make([]byte, 2*os.Getpagesize())
	content[0] = 1
	file, err := os.Create(filepath.Join(t.TempDir(), "program"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		t.Fatal(err)
	}
	if have, want := crcOf(file), crc32.Checksum(content, table); have != want {
		t.Errorf("the sum of the file is %x, want %x", have, want)
	}
	mapping, err := unix.Mmap(int(file.Fd()), 0, len(content), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapping) //nolint:errcheck // it is a mapping
	if err := file.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if sum, whole := crcOfMapping(mapping, table); whole {
		t.Errorf("the sum of a mapping whose file has ended is %x, want none", sum)
	}
}

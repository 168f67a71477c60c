package ipc

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// Build identifies the build of this program: what Go knows of how it was built, and a sum of its file.
// Two versions may differ in the sum alone: Go notes neither the flags of the linker with -trimpath,
// nor the source with -buildvcs=false. Daemon and worker are one file, so that theirs are equal.
var Build = sync.OnceValue(func() string {
	sum := sha256.New()
	if info, ok := debug.ReadBuildInfo(); ok {
		_, _ = io.WriteString(sum, info.String())
	}
	if file, err := os.Open("/proc/self/exe"); err == nil { // also after another file has taken its place
		_, _ = fmt.Fprintf(sum, "%x", crcOf(file))
		_ = file.Close()
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
})

// crcOf returns the CRC-32C of a file's content, which processors compute at the speed of memory. It reads
// the file where the page cache has it: a copy of it takes most of the time.
func crcOf(file *os.File) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	if info, err := file.Stat(); err == nil && info.Size() > 0 {
		if content, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_POPULATE); err == nil {
			defer unix.Munmap(content) //nolint:errcheck // it is a mapping
			if sum, whole := crcOfMapping(content, table); whole {
				return sum
			}
		}
	}
	content := crc32.New(table)
	_, _ = io.CopyBuffer(struct{ io.Writer }{content}, struct{ io.Reader }{file}, make([]byte, 256<<10))
	return content.Sum32()
}

// crcOfMapping returns false where the kernel can't read a page of the mapping, for which it raises a signal.
func crcOfMapping(content []byte, table *crc32.Table) (sum uint32, whole bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			sum, whole = 0, false
		}
	}()
	return crc32.Checksum(content, table), true
}

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
		content := crc32.New(crc32.MakeTable(crc32.Castagnoli)) // processors compute it at the speed of memory
		_, _ = io.CopyBuffer(struct{ io.Writer }{content}, struct{ io.Reader }{file}, make([]byte, 256<<10))
		_, _ = fmt.Fprintf(sum, "%x", content.Sum32())
		_ = file.Close()
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
})

package ipc

import (
	"crypto/sha256"
	"encoding/hex"
	"runtime/debug"
	"sync"
)

// Build identifies the build of this program: the source revision where Go knows it, the
// compiler, the settings, and the versions of all modules. Daemon and worker are one program,
// so that theirs are equal.
var Build = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	sum := sha256.Sum256([]byte(info.String()))
	return hex.EncodeToString(sum[:8])
})

package heap

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// leastMemory is what a node needs, in bytes. It is taken where the kernel does not tell how much
// there is.
const leastMemory = 256 << 20

// Available returns how many bytes this process may take: the memory of the host, or less where a
// control group of this process or one above it has a limit, as MemoryMax= of a systemd unit.
func Available() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return leastMemory
	}
	host := uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // 32 bits on other processors
	process, err := procfs.Self()
	if err != nil {
		return host
	}
	groups, err := process.Cgroups()
	if err != nil {
		return host // a kernel without control groups
	}
	for _, group := range groups {
		folder, file := "/sys/fs/cgroup", "memory.max" // cgroups(7): number 0 is that of version 2
		for _, controller := range group.Controllers {
			if controller == "memory" {
				folder, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
			}
		}
		host = min(host, limitOf(folder, file, group.Path))
	}
	return host
}

// limitOf returns the least limit that the group's folder and those above it have in their file, up
// to the folder root. It returns the largest number where they have none. In a namespace
// (cgroup_namespaces(7)) path may lead out of root, and has no file there.
func limitOf(root, file, path string) uint64 {
	least := ^uint64(0)
	for path = filepath.Clean("/" + path); ; path = filepath.Dir(path) {
		text, err := os.ReadFile(filepath.Join(root, path, file))
		if limit, bad := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && bad == nil { // "max" is no number
			least = min(least, limit)
		}
		if path == "/" {
			return least
		}
	}
}

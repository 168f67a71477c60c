package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// releaseStartupMemory returns memory to the host that only the start needed: garbage, and the
// pages of this program's code that the initialization of the Xray packages used, which the
// daemon does not run. A page that is needed again is read from the page cache.
func releaseStartupMemory() error {
	debug.FreeOSMemory()
	code, err := ownCode()
	if err != nil {
		return err
	}
	for _, mapping := range code {
		if err := dropPages(mapping.StartAddr, mapping.EndAddr-mapping.StartAddr); err != nil {
			return err
		}
	}
	return nil
}

// ownCode returns the mappings of this program's file that are code. Code alone is the same
// in memory and in the file: what was relocated can look as if it could not be written.
func ownCode() ([]*procfs.ProcMap, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's own file: %w", err)
	}
	process, err := procfs.Self()
	if err != nil {
		return nil, fmt.Errorf("read memory map: %w", err)
	}
	mappings, err := process.ProcMaps()
	if err != nil {
		return nil, fmt.Errorf("read memory map: %w", err)
	}
	var code []*procfs.ProcMap
	for _, m := range mappings {
		if m.Pathname == self && m.Perms.Read && m.Perms.Execute && !m.Perms.Write {
			code = append(code, m)
		}
	}
	return code, nil
}

func dropPages(from, size uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, size, unix.MADV_DONTNEED); errno != 0 {
		return fmt.Errorf("give back %d bytes at %#x: %w", size, from, errno)
	}
	return nil
}

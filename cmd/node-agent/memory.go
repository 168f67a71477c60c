package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// releaseStartupMemory returns memory to the host that only the start needed: garbage, and the
// pages of this program's code that the initialization of the Xray packages used, which the
// daemon does not run. A page that is needed again is read from the page cache.
func releaseStartupMemory() error {
	debug.FreeOSMemory()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own file: %w", err)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("read memory map: %w", err)
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil {
			return fmt.Errorf("read memory map: %w", err)
		}
		// Code alone is the same in the file: what was relocated can look as if it
		// could not be written.
		if strings.HasSuffix(lines.Text(), self) && strings.HasPrefix(mode, "r-x") {
			if err := dropPages(from, to-from); err != nil {
				return err
			}
		}
	}
	return nil
}

func dropPages(from, size uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, size, unix.MADV_DONTNEED); errno != 0 {
		return fmt.Errorf("give back %d bytes at %#x: %w", size, from, errno)
	}
	return nil
}

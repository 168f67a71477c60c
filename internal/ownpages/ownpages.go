// Package ownpages gives back to the host the memory in which a process has its program's file.
package ownpages

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Pages are the pages of memory that are the same in this program's file: its code and constants. The start uses many
// of them, to initialize packages, and does not need them again.
type Pages struct{ mappings []mapping }

// Find finds them. They stay where they are as long as the process runs.
func Find() (Pages, error) {
	mappings, err := ownConstants()
	return Pages{mappings}, err
}

// GiveBack returns them to the host. A page that is needed again is read from the page cache.
func (p Pages) GiveBack() {
	for _, m := range p.mappings {
		_ = dropPages(m.from, m.to-m.from) // it fails at addresses without memory alone, and in a kernel without madvise(2)
	}
}

// mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// ownConstants returns the mappings of this program's file that are the same in memory and in the file:
// they can't be written to, and no page of them is a copy (Anonymous and Swap in proc_pid_smaps(5)), as
// a loader makes that relocates pages and protects them afterwards.
func ownConstants() ([]mapping, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's own file: %w", err)
	}
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil, fmt.Errorf("read memory map: %w", err)
	}
	defer file.Close()
	var constants []mapping
	own := false // the lines are of a mapping that may be one of constants, the last
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), " ")
		if copied := name == "Anonymous:" || name == "Swap:"; copied && own && strings.TrimSpace(rest) != "0 kB" {
			constants, own = constants[:len(constants)-1], false
		}
		var m mapping
		if n, _ := fmt.Sscanf(name, "%x-%x", &m.from, &m.to); n != 2 || strings.HasSuffix(name, ":") {
			continue
		}
		own = strings.HasPrefix(rest, "r") && rest[1] == '-' && strings.HasSuffix(rest, " "+self)
		if own {
			constants = append(constants, m)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read memory map: %w", err)
	}
	return constants, nil
}

func dropPages(from, size uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, size, unix.MADV_DONTNEED); errno != 0 {
		return fmt.Errorf("give back %d bytes at %#x: %w", size, from, errno)
	}
	return nil
}

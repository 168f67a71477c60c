package confine

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// DropNetAdmin takes CAP_NET_ADMIN, which can change routes and firewalls, from all threads of this
// process for good (capabilities(7)). Without it nothing changes.
func DropNetAdmin() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // the capabilities up to 31, and the others
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read the capabilities of the worker: %w", err)
	}
	const bit = 1 << unix.CAP_NET_ADMIN
	if sets[0].Permitted&bit == 0 {
		return nil
	}
	sets[0].Permitted &^= bit
	sets[0].Effective &^= bit
	sets[0].Inheritable &^= bit // and with it the kernel takes it from the ambient set
	if _, _, failed := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0); failed != 0 {
		return fmt.Errorf("take CAP_NET_ADMIN from the worker: %w; allow capset in SystemCallFilter=", failed)
	}
	return nil
}

// Package refusal lets the kernel refuse a system call of this process, as the sandbox of a
// service does (systemd's RestrictAddressFamilies=, SystemCallFilter=). It is for tests.
package refusal

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call that is refused. The architecture is not looked at.
type Call struct {
	Number uint32         // as unix.SYS_SOCKET
	Args   map[int]uint32 // the lower halves of arguments, by their index; others may be any
	Errno  unix.Errno     // what the call returns
}

// Socket is making a socket of a family, which fails as systemd lets it fail.
func Socket(family uint32) Call {
	return Call{unix.SYS_SOCKET, map[int]uint32{0: family}, unix.EAFNOSUPPORT}
}

// ReusePort is setting SO_REUSEPORT.
func ReusePort() Call {
	return Call{unix.SYS_SETSOCKOPT, map[int]uint32{1: unix.SOL_SOCKET, 2: unix.SO_REUSEPORT}, unix.EPERM}
}

// Refuse refuses the call from now on, in all threads of this process and in its children.
// It can't be undone.
func Refuse(c Call) error {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equals = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		end    = unix.BPF_RET | unix.BPF_K
		// Offsets in struct seccomp_data (linux/seccomp.h), in bytes.
		number, firstArg, argSize = 0, 16, 8
	)
	type condition struct{ offset, value uint32 }
	conditions := []condition{{number, c.Number}}
	for i, value := range c.Args {
		conditions = append(conditions, condition{uint32(firstArg + argSize*i), value}) // little endian
	}
	var program []unix.SockFilter
	for i, one := range conditions {
		left := uint8(2*(len(conditions)-i-1) + 1) // instructions up to the one that allows the call
		program = append(program, unix.SockFilter{Code: load, K: one.offset}, unix.SockFilter{Code: equals, Jf: left, K: one.value})
	}
	program = append(program,
		unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ERRNO | uint32(c.Errno)},
		unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ALLOW})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("set a filter of system calls: %w", errno)
	}
	return nil
}

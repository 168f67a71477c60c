// Package descriptors finds out whether a process can still open files and sockets.
package descriptors

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Exhausted returns what an operator reads about the missing descriptor where this process
// can open no file or socket; empty where it can. It opens one and closes it again.
func Exhausted() string {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err == nil {
		_ = unix.Close(fd)
		return ""
	}
	return Explain(err)
}

// Explain returns what an operator reads about an error that says that there was no
// descriptor left; empty for any other error, and for nil.
func Explain(err error) string {
	switch {
	case errors.Is(err, unix.EMFILE):
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return "the process has used up its file descriptors"
		}
		return fmt.Sprintf("the process has used up its %d file descriptors (raise LimitNOFILE= in the unit)", limit.Cur)
	case errors.Is(err, unix.ENFILE):
		return "the host has used up its file descriptors (raise the sysctl fs.file-max)"
	}
	return ""
}

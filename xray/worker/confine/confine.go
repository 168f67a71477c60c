package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Paths are what the process may use besides what every worker needs. What is no folder that can be
// opened is left out.
type Paths struct {
	Read    []string // folders whose files are read
	Sockets []string // folders in which unix sockets are made and removed
	// NetworkSettings is for a process that keeps CAP_NET_ADMIN: it may write what /proc/sys/net has, as
	// WireGuard's kernel interfaces need (xray-core, proxy/wireguard/tun_linux.go:76).
	NetworkSettings bool
	// LeftOut is told of each folder that is there and can't be opened. It may be nil.
	LeftOut func(folder string, err error)
}

// usable returns those of the folders that can be opened. Landlock's IgnoreIfMissing passes over
// ENOENT alone, and one folder that can't be used must not keep the worker from all its inbounds.
func (p Paths) usable(folders []string) []string {
	var all []string
	for _, folder := range slices.Compact(slices.Sorted(slices.Values(folders))) {
		fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			_ = unix.Close(fd)
			all = append(all, folder)
		case !errors.Is(err, unix.ENOENT) && p.LeftOut != nil:
			p.LeftOut(folder, err)
		}
	}
	return all
}

// everyWorkerReads are the folders that Go's packages read: the configuration of the resolver,
// which other programs replace at any time, so that rules for single files would not last; the
// certificates of authorities; time zones; the types of files; the limits of the network.
var everyWorkerReads = []string{
	"/etc", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/lib/ssl", "/var/lib/ca-certificates",
	"/usr/share/zoneinfo", "/usr/share/mime", networkSettings, "/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf",
}

// linked are files that may be links to places outside of these folders.
var linked = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/localtime", "/etc/ssl/certs/ca-certificates.crt"}

const (
	// socketRights are for a unix socket and its lock file (xray-core's
	// transport/internet/filelocker_other.go), which are renamed inside of one folder.
	socketRights = ll.AccessFSMakeSock | ll.AccessFSMakeReg | ll.AccessFSRemoveFile | ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate
	// tun is the device of WireGuard's kernel interfaces; a host without it has no such file.
	tun = "/dev/net/tun"
	// networkSettings are the kernel's, of this network namespace.
	networkSettings = "/proc/sys/net"
)

// Restrict confines this process for good, all of its threads. It returns what confines it, for
// an operator, also where that is nothing because the kernel can't.
func Restrict(paths Paths) (string, error) {
	if !enabled {
		return "nothing: the program was built with the tag unchecked", nil
	}
	version, err := ll.LandlockGetABIVersion()
	if err != nil {
		return missing(err), nil
	}
	read := append(append([]string{}, everyWorkerReads...), paths.usable(paths.Read)...)
	for _, link := range linked {
		if target, err := filepath.EvalSymlinks(link); err == nil {
			read = append(read, filepath.Dir(target))
		}
	}
	rules := []landlock.Rule{
		landlock.PathAccess(ll.AccessFSReadFile|ll.AccessFSReadDir, read...).IgnoreIfMissing(),
		landlock.PathAccess(ll.AccessFSReadFile|ll.AccessFSWriteFile, os.DevNull, "/dev/urandom").IgnoreIfMissing(),
		landlock.PathAccess(ll.AccessFSReadFile|ll.AccessFSWriteFile, tun).WithIoctlDev().IgnoreIfMissing(),
		landlock.PathAccess(socketRights, paths.usable(paths.Sockets)...).IgnoreIfMissing(),
	}
	if paths.NetworkSettings {
		rules = append(rules, landlock.PathAccess(ll.AccessFSReadFile|ll.AccessFSReadDir|ll.AccessFSWriteFile|ll.AccessFSTruncate, networkSettings).IgnoreIfMissing())
	}
	if err := landlock.V7.BestEffort().RestrictPaths(rules...); err != nil {
		return "", fmt.Errorf("confine the worker to its files by Landlock: %w", err)
	}
	confined := fmt.Sprintf("Landlock version %d: files", version)
	if version >= signalVersion {
		// Not abstract unix sockets: a fallback may lead to one of another program.
		if err := (landlock.Config{Scoped: ll.ScopeSignal}).RestrictScoped(); err != nil {
			return "", fmt.Errorf("keep the worker from signals to other processes by Landlock: %w", err)
		}
		confined += ", signals"
	}
	return confined, nil
}

// signalVersion is the first version of Landlock that knows signals (Linux 6.12).
const signalVersion = 6

// missing says why there is no Landlock, by the error of the question for its version.
func missing(err error) string {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return "nothing: the kernel has no Landlock (Linux 5.13 and newer have it)"
	case errors.Is(err, unix.EOPNOTSUPP):
		return "nothing: Landlock is off; add it to the kernel's parameter lsm="
	case errors.Is(err, unix.EPERM):
		return "nothing: a filter of system calls refuses Landlock; allow landlock_create_ruleset, landlock_add_rule and landlock_restrict_self in SystemCallFilter="
	}
	return fmt.Sprintf("nothing: %s has no Landlock: %v", runtime.GOOS, err)
}

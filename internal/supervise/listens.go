package supervise

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/prometheus/procfs"
)

// tcpListen is the state of a listening socket in /proc/net/tcp (Linux, include/net/tcp_states.h,
// TCP_LISTEN).
const tcpListen = 10

// Listens reports whether the process itself listens on the TCP address, which is one of IPv4.
// An answer from the address does not tell that: another process may listen there. It reads
// /proc/PID/net/tcp and /proc/PID/fd, and returns an error where it may not.
func (p *Process) Listens(at netip.AddrPort) (bool, error) {
	fs, err := procfs.NewFS(fmt.Sprintf("/proc/%d", p.PID()))
	if err != nil {
		return false, fmt.Errorf("find process %d: %w", p.PID(), err)
	}
	sockets, err := fs.NetTCP() //nolint:staticcheck // netlink, which is advised instead, lists no sockets of another network namespace
	if err != nil {
		return false, fmt.Errorf("list the TCP sockets of process %d: %w", p.PID(), err)
	}
	process, err := procfs.NewProc(p.PID())
	if err != nil {
		return false, fmt.Errorf("find process %d: %w", p.PID(), err)
	}
	files, err := process.FileDescriptorTargets()
	if err != nil {
		return false, fmt.Errorf("list the open files of process %d: %w", p.PID(), err)
	}
	for _, s := range sockets {
		ip, _ := netip.AddrFromSlice(s.LocalAddr)
		if s.St == tcpListen && netip.AddrPortFrom(ip.Unmap(), uint16(s.LocalPort)) == at {
			return slices.Contains(files, fmt.Sprintf("socket:[%d]", s.Inode)), nil
		}
	}
	return false, nil
}

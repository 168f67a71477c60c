package unixsocket

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	xnet "github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/infra/conf"

	"nodeagent/xray/state"
	"nodeagent/xray/worker/transport/listen"
)

const (
	// besideText is how long the random end of a socket's name is, where xray-core makes it.
	besideText = 6
	// longestUnixPath is the longest path of a unix socket, in bytes.
	longestUnixPath = 107
	// settleWait is for a listener to accept who came before another took its path.
	settleWait = 5 * time.Millisecond
)

// Socket is an inbound's unix socket. xray-core makes it beside its path, and it is
// renamed over the one that is there: there is always one that listens, the file of a
// worker that was killed does not matter, and neither does the lock beside the path, for which
// xray-core would wait for ever.
type Socket struct {
	Path   string      // "@name" where it is abstract, which can't be renamed
	mode   string      // octal; empty for the one that it comes with
	beside string      // where xray-core makes it, and what it removes at its end
	placed os.FileInfo // what is at the path, once it is ours
}

// MakeBeside lets the inbound make its unix socket beside its path; nil where it has none.
func MakeBeside(want *state.Inbound, detour *conf.InboundDetourConfig) *Socket {
	bindings, err := want.Bindings()
	if err != nil || len(bindings) != 1 || bindings[0].Path == "" || detour.ListenOn == nil || !detour.ListenOn.Family().IsDomain() {
		return nil
	}
	s := &Socket{}
	s.Path, s.mode = state.UnixPath(detour.ListenOn.Domain())
	if isAbstract(s.Path) {
		return s
	}
	s.beside = besidePrefix(s.Path) + rand.Text()[:besideText]
	detour.ListenOn = &conf.Address{Address: xnet.DomainAddress(s.beside)}
	return s
}

func besidePrefix(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+listen.BeforeRandom)
}

func isAbstract(path string) bool { return strings.HasPrefix(path, "@") }

// SameName tells whether both have one abstract name, which one can listen on alone.
func (s *Socket) SameName(o *Socket) bool {
	return s != nil && o != nil && isAbstract(s.Path) && s.Path == o.Path
}

// Place brings a socket that listens to its path.
func (s *Socket) Place() error {
	if s == nil || isAbstract(s.Path) {
		return nil
	}
	removeLeft(s.Path, s.beside)
	info, err := os.Lstat(s.beside)
	if err != nil {
		return fmt.Errorf("listen on the unix socket %s: %w", s.Path, err)
	}
	if s.mode != "" {
		mode, err := strconv.ParseUint(s.mode, 8, 32)
		if err == nil {
			err = os.Chmod(s.beside, os.FileMode(mode))
		}
		if err != nil {
			return fmt.Errorf("give the unix socket %s the mode %q: %w", s.Path, s.mode, err)
		}
	}
	_ = os.Remove(s.beside + ".lock") // nobody else is to wait for it
	if err := os.Rename(s.beside, s.Path); err != nil {
		return fmt.Errorf("put the unix socket in its place: %w", err)
	}
	s.placed = info
	return nil
}

// removeLeft removes what workers left beside path that were killed while they made
// a socket. What listens stays, and what is ours.
func removeLeft(path, ours string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return
	}
	for _, entry := range entries {
		other := filepath.Join(filepath.Dir(path), entry.Name())
		name := strings.TrimSuffix(other, ".lock")
		if len(name) == len(ours) && strings.HasPrefix(name, besidePrefix(path)) && name != ours && !isHeld(name) {
			_ = os.Remove(other)
		}
	}
}

// Settle waits for the one before to accept who came before place.
func (s *Socket) Settle() {
	if s != nil && s.placed != nil {
		time.Sleep(settleWait)
	}
}

// Remove removes the socket from its path, where no other has taken it.
func (s *Socket) Remove() {
	if s == nil || s.placed == nil {
		return
	}
	if info, err := os.Lstat(s.Path); err == nil && os.SameFile(info, s.placed) {
		_ = os.Remove(s.Path)
	}
}

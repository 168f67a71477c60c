package adminapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"nodeagent/coreapi"
)

const socketName = "admin.sock"

// Dial makes a client of the Core that runs in the data folder dir.
func Dial(dir string) *coreapi.Client {
	return coreapi.OverSocket(dir, filepath.Join(dir, socketName))
}

// Listen opens the socket in the data folder, with mode 0600. A socket that an earlier Core has
// left is removed. If another Core answers on it, Listen fails, so that one data folder never
// has two.
func Listen(ctx context.Context, dir string) (net.Listener, error) {
	path := filepath.Join(dir, socketName)
	if conn, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("another node-core runs in %s; stop it, or give this one another --data-dir", dir)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier run: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for commands: %w", err), listener.Close())
	}
	return listener, nil
}

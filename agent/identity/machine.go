package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// machineFile has the id of this installation of the system (machine-id(5)).
const machineFile = "/etc/machine-id"

// ThisMachine returns the hash of this host's machine-id with a node's id, empty where the
// system has none. The id itself is confidential, as machine-id(5) says.
func ThisMachine(nodeID string) (string, error) {
	raw, err := os.ReadFile(machineFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("read this host's machine-id: %w", err)
	}
	id := strings.TrimSpace(string(raw))
	if id == "" || id == "uninitialized" { // machine-id(5), first boot
		return "", nil
	}
	sum := sha256.Sum256([]byte("node-agent\x00" + nodeID + "\x00" + id))
	return hex.EncodeToString(sum[:16]), nil
}

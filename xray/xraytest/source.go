package xraytest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Source returns the folder of xray-core's source that the tests are built from. A program that is built
// with -trimpath does not know it.
func Source(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "github.com/xtls/xray-core/core").Output()
	if err != nil {
		t.Fatalf("find the source of xray-core: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

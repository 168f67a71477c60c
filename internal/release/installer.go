package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// installer writes install.sh with the address and key of this release.
func (o options) installer() error {
	script, err := os.ReadFile("packaging/install.sh")
	if err != nil {
		return fmt.Errorf("read the installer: %w", err)
	}
	text := strings.NewReplacer("release_url=''", "release_url='"+o.url+"'", "release_key=''", "release_key='"+o.key+"'").Replace(string(script))
	if err := os.WriteFile(filepath.Join(o.out, "install.sh"), []byte(text), 0o755); err != nil {
		return fmt.Errorf("write the installer: %w", err)
	}
	return nil
}

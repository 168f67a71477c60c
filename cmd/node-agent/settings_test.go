package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// The configuration that packages install names every key with its default.
func TestPackagedConfigurationHasTheDefaults(t *testing.T) {
	text, err := os.ReadFile("../../packaging/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.toml")
	all := regexp.MustCompile(`(?m)^#(\S)`).ReplaceAllString(string(text), "$1")
	if err := os.WriteFile(path, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	var s settings
	if err := s.readFile(path); err != nil {
		t.Fatal(err)
	}
	want := defaultSettings()
	if s.Heartbeat.Interval == 0 || s.Accounting.Interval == 0 || s.Accounting.SessionLinger == 0 {
		t.Errorf("the file lacks a default of the agent's: %+v", s)
	}
	s.Heartbeat, s.Accounting = want.Heartbeat, want.Accounting // agent.New has their defaults
	if s != want {
		t.Errorf("the file says\n%+v, the defaults are\n%+v", s, want)
	}
	written, err := toml.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(written)) {
		if key, _, is := strings.Cut(line, " ="); is && !strings.Contains(string(text), "\n#"+key+" =") {
			t.Errorf("the file lacks the key %s", key)
		}
	}
}

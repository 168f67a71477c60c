package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
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
	if s.Heartbeat.Interval.Duration == 0 || s.Accounting.Interval.Duration == 0 || s.Accounting.SessionLinger.Duration == 0 {
		t.Errorf("the file lacks a default of the agent's: %+v", s)
	}
	s.Heartbeat, s.Accounting = want.Heartbeat, want.Accounting // agent.New has their defaults
	if !reflect.DeepEqual(s, want) {
		t.Errorf("the file says\n%+v, the defaults are\n%+v", s, want)
	}
	var check func(part reflect.Type)
	check = func(part reflect.Type) {
		for field := range part.Fields() {
			key := field.Tag.Get("toml")
			if field.Type.Kind() == reflect.Struct && field.Type != reflect.TypeFor[duration]() {
				if !strings.Contains(string(text), "\n#["+key+"]\n") {
					t.Errorf("the file lacks the part %s", key)
				}
				check(field.Type)
			} else if !strings.Contains(string(text), "\n#"+key+" = ") {
				t.Errorf("the file lacks the key %s", key)
			}
		}
	}
	check(reflect.TypeFor[settings]())
}

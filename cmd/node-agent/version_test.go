package main

import (
	"regexp"
	"testing"
)

// Core is told each engine's version as a product of its own.
func TestUserAgent(t *testing.T) {
	for telemt, want := range map[string]string{
		"":       `^node-agent/dev xray/[0-9]+\.[0-9]+\.[0-9]+$`,
		"3.4.25": `^node-agent/dev xray/[0-9]+\.[0-9]+\.[0-9]+ telemt/3\.4\.25$`,
	} {
		if have := userAgent(telemt); !regexp.MustCompile(want).MatchString(have) {
			t.Errorf("with telemt %q it is %q, want %s", telemt, have, want)
		}
	}
}

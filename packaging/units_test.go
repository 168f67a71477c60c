package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mostExposed is the most that systemd-analyze may say of a unit's exposure, in tenths.
const mostExposed = "16"

// systemd-analyze wants the program of a unit to exist, so the test writes a program into a
// temporary folder and verifies a copy of the unit that names it.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("NOT RUN: systemd-analyze is not installed, so the units can't be verified (apt-get install systemd)")
	}
	for _, name := range []string{"node-agent", "node-core"} {
		t.Run(name, func(t *testing.T) {
			unit, err := os.ReadFile(name + ".service")
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			program := filepath.Join(dir, name)
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			placed := strings.ReplaceAll(string(unit), "/usr/bin/"+name, program)
			if placed == string(unit) {
				t.Fatalf("the unit does not start /usr/bin/%s", name)
			}
			path := filepath.Join(dir, name+".service")
			if err := os.WriteFile(path, []byte(placed), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
			if err != nil || strings.Contains(string(out), path) {
				t.Fatalf("systemd-analyze verify: %v\n%s", err, out)
			}
			out, err = exec.Command(analyze, "security", "--offline=true", "--no-pager", "--threshold="+mostExposed, path).CombinedOutput()
			if strings.Contains(string(out), "unrecognized option") {
				t.Logf("NOT CHECKED: how exposed %s is; this systemd-analyze has no --offline (systemd 250 has)", name)
			} else if err != nil {
				t.Errorf("the unit is more exposed than %s tenths: %v\n%s", mostExposed, err, out)
			}
		})
	}
}

// The filter of system calls leaves the worker what it confines itself with. systemd takes the lines
// in their order, so that the last one counts.
func TestUnitAllowsTheWorkerToConfineItself(t *testing.T) {
	unit, err := os.ReadFile("node-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	_, last, _ := strings.Cut(string(unit), "\nSystemCallFilter=~@privileged")
	_, allowed, _ := strings.Cut(last, "\nSystemCallFilter=")
	allowed, _, _ = strings.Cut(allowed, "\n")
	for _, call := range []string{"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "capset"} {
		if !slices.Contains(strings.Fields(allowed), call) {
			t.Errorf("the unit does not allow %s after it has taken @privileged: %q", call, allowed)
		}
	}
}

// Package scripttest runs the scripts (testdata/script/*.txtar) that test the
// commands of node-agent and node-core. A script is a list of commands with what
// they print; the format is described by testscript's documentation. Beside the
// commands of testscript a script can use:
//
//	fails CODE PROGRAM ARG...
//	    PROGRAM exits with CODE, prints nothing to stdout, and prints one line to
//	    stderr, which begins with the program's name.
//	exits CODE PROGRAM ARG...
//	    PROGRAM exits with CODE. What it prints is for the commands after.
//	shows-help PROGRAM ARG...
//	    PROGRAM ARG... --help exits with 0 and prints a usage and an example.
//	eventually REGEXP PROGRAM ARG...
//	    PROGRAM is run again and again until its stdout matches REGEXP.
//	eventually-quiet PROGRAM ARG...
//	    PROGRAM is run again and again until it prints nothing to stderr.
//	waitfor FILE...
//	    Waits until the files (sockets too) exist.
//	json PATH VALUE, ! json PATH
//	    The stdout of the last command is JSON and has VALUE at PATH, or has
//	    nothing there. Dots separate the names and indexes of PATH; length is the
//	    length of a list: 0.name, links.length.
//	setenv-json NAME PATH
//	    Sets an environment variable to the value at PATH.
package scripttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

const (
	scripts = "testdata/script"
	// patience bounds a wait for something that should happen soon.
	patience = 30 * time.Second
	// pause is the time between two looks.
	pause = 10 * time.Millisecond
)

// Command is a command of scripts.
type Command = func(ts *testscript.TestScript, neg bool, args []string)

// Run runs each script as a subtest. Scripts can use the commands of this package
// and more. The programs are those that testscript.Main was given.
func Run(t *testing.T, more map[string]Command) {
	t.Helper()
	commands := map[string]Command{
		"fails": fails, "exits": exits, "shows-help": showsHelp, "eventually": eventually, "eventually-quiet": eventuallyQuiet,
		"waitfor": waitFor, "json": checkJSON, "setenv-json": setenvJSON,
	}
	maps.Copy(commands, more)
	testscript.Run(t, testscript.Params{Dir: scripts, Cmds: commands, Setup: setUp, RequireUniqueNames: true})
}

// setUp lets programs that were built with -race end at once. The race detector
// sleeps for a second before a program exits with 0, and a script runs dozens.
func setUp(env *testscript.Env) error {
	env.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	return nil
}

// EveryCommand checks that each command below root has an example, and that a
// script looks at its help.
func EveryCommand(t *testing.T, root *cobra.Command) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(scripts, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("find the scripts: %v, %d found", err, len(files))
	}
	var all strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	everyCommand(t, root, all.String())
}

func everyCommand(t *testing.T, cmd *cobra.Command, scripts string) {
	t.Helper()
	if cmd.Hidden || cmd.Name() == "completion" { // completion is cobra's own
		return
	}
	if cmd.Example == "" {
		t.Errorf("the help of %q has no example", cmd.CommandPath())
	}
	if line := "shows-help " + cmd.CommandPath() + "\n"; !strings.Contains(scripts, line) {
		t.Errorf("no script has the line %q", line)
	}
	for _, sub := range cmd.Commands() {
		everyCommand(t, sub, scripts)
	}
}

func usage(ts *testscript.TestScript, ok bool, words string) {
	if !ok {
		ts.Fatalf("usage: %s", words)
	}
}

func fails(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "fails CODE PROGRAM ARG...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	wantExit(ts, want, args[1:])
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("%s printed to stdout:\n%s", args[1], out)
	}
	if words := ts.ReadFile("stderr"); strings.Count(words, "\n") != 1 || !strings.HasPrefix(words, args[1]+": ") {
		ts.Fatalf("%s wants to print one line to stderr that begins with its name, and printed:\n%s", args[1], words)
	}
}

func wantExit(ts *testscript.TestScript, want int, args []string) {
	err := ts.Exec(args[0], args[1:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != want {
		ts.Fatalf("%s ended with %v, want exit code %d", args[0], err, want)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "exits CODE PROGRAM ARG...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	wantExit(ts, want, args[1:])
}

func showsHelp(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 1, "shows-help PROGRAM ARG...")
	ts.Check(ts.Exec(args[0], append(args[1:], "--help")...))
	for _, heading := range []string{"Usage:\n  " + strings.Join(args, " "), "\nExamples:\n"} {
		if !strings.Contains(ts.ReadFile("stdout"), heading) {
			ts.Fatalf("the help of %v does not have %q", args, heading)
		}
	}
}

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "eventually REGEXP PROGRAM ARG...")
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	Await(ts, fmt.Sprintf("%v prints %s", args[1:], args[0]), func() bool {
		return ts.Exec(args[1], args[2:]...) == nil && want.MatchString(ts.ReadFile("stdout"))
	})
}

func eventuallyQuiet(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) > 0, "eventually-quiet PROGRAM ARG...")
	Await(ts, fmt.Sprintf("%v prints nothing to stderr", args), func() bool {
		return ts.Exec(args[0], args[1:]...) == nil && ts.ReadFile("stderr") == ""
	})
}

func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) > 0, "waitfor FILE...")
	for _, file := range args {
		Await(ts, file+" exists", func() bool {
			_, err := os.Stat(ts.MkAbs(file))
			return err == nil
		})
	}
}

// Await waits until what is said has happened, and fails the script where that takes long.
func Await(ts *testscript.TestScript, what string, happened func() bool) {
	for deadline := time.Now().Add(patience); !happened(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			ts.Fatalf("waited %s in vain until %s", patience, what)
		}
	}
}

func checkJSON(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg && len(args) == 1 || !neg && len(args) == 2, "json PATH VALUE, ! json PATH")
	value, found := lookUp(ts, args[0])
	switch {
	case neg && found:
		ts.Fatalf("%s is %s, want nothing", args[0], value)
	case !neg && !found:
		ts.Fatalf("there is nothing at %s in:\n%s", args[0], ts.ReadFile("stdout"))
	case !neg && value != args[1]:
		ts.Fatalf("%s is %s, want %s", args[0], value, args[1])
	}
}

func setenvJSON(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "setenv-json NAME PATH")
	value, found := lookUp(ts, args[1])
	if !found {
		ts.Fatalf("there is nothing at %s in:\n%s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], value)
}

// lookUp finds a value in the stdout of the last command. Text is returned as it
// is, other values as JSON.
func lookUp(ts *testscript.TestScript, path string) (value string, found bool) {
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	decoder.UseNumber()
	var at any
	ts.Check(decoder.Decode(&at))
	if decoder.More() {
		ts.Fatalf("stdout has more than one JSON value:\n%s", ts.ReadFile("stdout"))
	}
	for step := range strings.SplitSeq(path, ".") {
		if at, found = enter(at, step); !found {
			return "", false
		}
	}
	if text, is := at.(string); is {
		return text, true
	}
	var raw bytes.Buffer
	encoder := json.NewEncoder(&raw)
	encoder.SetEscapeHTML(false)
	ts.Check(encoder.Encode(at))
	return strings.TrimSpace(raw.String()), true
}

func enter(at any, step string) (inner any, found bool) {
	switch at := at.(type) {
	case map[string]any:
		inner, found = at[step]
		return inner, found
	case []any:
		if step == "length" {
			return len(at), true
		}
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(at) {
			return at[i], true
		}
	}
	return nil, false
}

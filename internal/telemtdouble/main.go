package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// faults are what a test asks for, in a file beside the program: the node gives
// its children an environment of its own.
type faults struct {
	version     string        // that it says it is
	startDelay  time.Duration // before it serves
	apiDelay    time.Duration // before each answer
	loseEdits   int           // how many edits of the file go unseen at first
	refuseStart string        // words with which it ends at the start
	refuseEdits bool          // it takes no change of the file
	failReload  bool          // no new generation comes up
	unreachable bool          // no Telegram centre
	deaf        bool          // it binds no port for clients
}

// faultsSuffix makes the name of the file beside the program: NAME=VALUE lines.
const faultsSuffix = ".faults"

func readFaults() faults {
	f := faults{version: "3.4.25"}
	raw, err := os.ReadFile(os.Args[0] + faultsSuffix)
	if err != nil {
		return f
	}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "":
		case "version":
			f.version = value
		case "start_delay":
			f.startDelay, _ = time.ParseDuration(value)
		case "api_delay":
			f.apiDelay, _ = time.ParseDuration(value)
		case "lose_edits":
			_, _ = fmt.Sscan(value, &f.loseEdits)
		case "refuse_start":
			f.refuseStart = value
		case "refuse_edits":
			f.refuseEdits = value == "true"
		case "fail_reload":
			f.failReload = value == "true"
		case "unreachable":
			f.unreachable = value == "true"
		case "deaf":
			f.deaf = value == "true"
		default:
			fmt.Fprintf(os.Stderr, "[telemt] the double knows no fault %q\n", name)
			os.Exit(2)
		}
	}
	return f
}

func main() {
	f := readFaults()
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("telemt " + f.version)
		return
	}
	if len(os.Args) != 5 || os.Args[1] != "run" || os.Args[2] != "--data-path" {
		fmt.Fprintln(os.Stderr, "[telemt] want: run --data-path DIR FILE")
		os.Exit(2)
	}
	if err := run(os.Args[4], f); err != nil {
		fmt.Fprintln(os.Stderr, "[telemt] Error:", err)
		os.Exit(1)
	}
}

func run(file string, f faults) error {
	c, raw, err := load(file)
	if err == nil {
		err = c.validate()
	}
	if err != nil {
		return err
	}
	if f.refuseStart != "" {
		return refusal(f.refuseStart)
	}
	time.Sleep(f.startDelay) // SIGTERM just kills until here, as with telemt
	p := newProxy(file, c, raw, f)
	listening := 0
	for _, l := range c.Server.Listeners {
		if f.deaf {
			listening++
			break
		}
		at := net.JoinHostPort(l.IP, fmt.Sprint(l.Port))
		listener, err := net.Listen("tcp", at)
		if err != nil {
			say("ERROR", "Failed to bind: address already in use addr=%s", at)
			continue
		}
		listening++
		go p.accept(listener)
	}
	if listening == 0 {
		say("ERROR", "No listeners. Exiting.")
		os.Exit(1)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go p.watch()
	serve(c.Server.MetricsListen, http.HandlerFunc(p.metrics))
	serve(c.Server.API.Listen, p.api()) // last, as with telemt
	<-stop
	return nil
}

// serve goes on without what it can't bind, as telemt does.
func serve(at string, handler http.Handler) {
	listener, err := net.Listen("tcp", at)
	if err != nil {
		say("WARN", "Failed to bind %s error=%v", at, err)
		return
	}
	go func() { _ = http.Serve(listener, handler) }()
}

var saying sync.Mutex

// say logs a line as telemt does, to standard output.
func say(level, format string, args ...any) {
	saying.Lock()
	defer saying.Unlock()
	fmt.Printf("%s %5s telemt::double: %s\n", time.Now().UTC().Format(time.RFC3339Nano), level, fmt.Sprintf(format, args...))
}

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

// faults are the faults that a test switches on, in a file beside the program. An environment
// variable would not reach the double: the node gives its children a fixed environment.
type faults struct {
	version     string        // the version that it reports
	startDelay  time.Duration // wait before it serves
	apiDelay    time.Duration // wait before each answer of the API
	loseEdits   int           // how many of the first edits of the file it ignores
	refuseStart string        // error text with which it ends at the start; empty for none
	refuseEdits bool          // it refuses every edit of the file
	failReload  bool          // a reload fails and the old generation goes on
	unreachable bool          // it reports that it reaches no Telegram data centre
	deaf        bool          // it binds no port for clients
}

// faultsSuffix is the suffix of the faults file's name. The file has a NAME=VALUE in each
// line.
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
	time.Sleep(f.startDelay) // SIGTERM is not handled before this point, as in telemt
	p := newProxy(file, c, raw, f)
	listening := 0
	for _, l := range c.Server.Listeners {
		if f.deaf {
			listening++
			break
		}
		at := net.JoinHostPort(l.IP, fmt.Sprint(l.Port))
		network := "tcp4"
		if strings.Contains(l.IP, ":") {
			network = "tcp6" // which takes no IPv4, as telemt
		}
		listener, err := net.Listen(network, at)
		if err != nil {
			logLine("ERROR", "Failed to bind: address already in use addr=%s", at)
			continue
		}
		listening++
		go p.accept(listener)
	}
	if listening == 0 {
		logLine("ERROR", "No listeners. Exiting.")
		os.Exit(1)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	// Go's runtime does not inherit that it is ignored, as telemt does (runtime/signal_unix.go,
	// sigInstallGoHandler).
	signal.Ignore(syscall.SIGXFSZ)
	go p.watch()
	serve(c.Server.MetricsListen, http.HandlerFunc(p.metrics))
	serve(c.Server.API.Listen, p.api()) // last, as in telemt
	<-stop
	return nil
}

// serve serves handler on the address at. Where the port cannot be bound, the program goes
// on without it, as telemt does.
func serve(at string, handler http.Handler) {
	listener, err := net.Listen("tcp", at)
	if err != nil {
		logLine("WARN", "Failed to bind %s error=%v", at, err)
		return
	}
	go func() { _ = http.Serve(listener, handler) }()
}

var logMu sync.Mutex // guards standard output

// logLine writes a line to standard output in the format of telemt's log.
func logLine(level, format string, args ...any) {
	logMu.Lock()
	defer logMu.Unlock()
	fmt.Printf("%s %5s telemt::double: %s\n", time.Now().UTC().Format(time.RFC3339Nano), level, fmt.Sprintf(format, args...))
}

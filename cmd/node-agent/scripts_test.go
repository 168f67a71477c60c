package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/refusal"
	"nodeagent/internal/scripttest"
	"nodeagent/internal/secret"
	"nodeagent/store"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"node-agent":                      main,
		"node-agent-without-unix-sockets": without(unix.AF_UNIX),
		"node-agent-without-ipv6":         without(unix.AF_INET6),
	})
}

// without returns the program for a system that makes no sockets of the family.
func without(family uint32) func() {
	return func() {
		if err := refusal.Refuse(refusal.Socket(family)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		main()
	}
}

// TestScripts runs testdata/script. Beside the commands of scripttest the scripts
// can use:
//
//	core [CONFIG]
//	    Starts a Core for this script. $CORE is its address over plain HTTP, and
//	    $CORE_TLS the one over TLS, with the certificate core.pem. It accepts the
//	    code "good", refuses others, and takes every report. CONFIG names the
//	    NodeConfig that it serves; $NAME in it is replaced. $TOKEN is a join token
//	    over TLS, and $TOKEN_USED one whose code was used. Each of the two addresses names
//	    another Core's id.
//	serve-config CONFIG
//	    Lets that Core serve another NodeConfig, of another revision.
//	core-answers STATUS
//	    Lets that Core answer every request but a registration with an HTTP status and
//	    no more; 0 ends that.
//	core-hears REVISION REGEXP
//	    Waits until that Core had a heartbeat that names the running revision, and a report
//	    of an error whose JSON matches.
//	hold-port PORT
//	    Listens on a port of 127.0.0.1 until the script ends.
//	freeport NAME
//	    Sets an environment variable to a port of 127.0.0.1 that is free.
//	systemd SECONDS
//	    Listens in the place of systemd for what the daemon says of itself (sd_notify(3)), with
//	    a watchdog of that many seconds.
//	systemd-hears REGEXP
//	    Waits until the daemon has sent a message that matches since the last such command.
//	set-aside STATE_DIR
//	    Puts a usage report of one row aside, as if Core had refused it for good.
func TestScripts(t *testing.T) {
	scripttest.Run(t, map[string]scripttest.Command{
		"core": startCore, "serve-config": serveConfig, "core-answers": coreAnswers, "core-hears": coreHears,
		"hold-port": holdPort, "freeport": freePort, "set-aside": setAside,
		"systemd": listenAsSystemd, "systemd-hears": systemdHears,
	})
}

func TestEveryCommandHasAScript(t *testing.T) {
	scripttest.EveryCommand(t, newRootCmd(streams{out: io.Discard, err: io.Discard}))
}

func startCore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: core [CONFIG]")
	}
	core := &scriptCore{}
	if len(args) == 1 {
		core.serve(ts, args[0])
	}
	scriptCores.Store(ts, core)
	plain := httptest.NewServer(core.routes())
	ts.Defer(plain.Close)
	secure := httptest.NewTLSServer(plain.Config.Handler)
	ts.Defer(secure.Close)
	certificate := secure.Certificate().Raw
	ts.Check(os.WriteFile(ts.MkAbs("core.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600))
	pin := sha256.Sum256(certificate)
	for name, code := range map[string]string{"TOKEN": "good", "TOKEN_USED": "used"} {
		ts.Setenv(name, wire.JoinToken{CoreURL: secure.URL, Code: secret.Text(code), Pin: hex.EncodeToString(pin[:])}.Encode())
	}
	ts.Setenv("CORE", plain.URL)
	ts.Setenv("CORE_TLS", secure.URL)
}

// scriptCores has the Core of each script, a *scriptCore by its *testscript.TestScript.
var scriptCores sync.Map

// scriptCore is a Core that wants one NodeConfig.
type scriptCore struct {
	mu       sync.Mutex
	config   string // empty for none
	revision int64  // of config
	status   int    // to answer with; 0 for what the route answers
	running  int64  // revision that the last heartbeat named
	errors   string // bodies of all reports of errors
}

func coreOf(ts *testscript.TestScript, isRight bool, usage string) *scriptCore {
	core, started := scriptCores.Load(ts)
	if !isRight || !started {
		ts.Fatalf("usage: %s, after core", usage)
	}
	return core.(*scriptCore)
}

func (c *scriptCore) serve(ts *testscript.TestScript, file string) {
	config := os.Expand(ts.ReadFile(file), ts.Getenv)
	var read wire.NodeConfig
	ts.Check(json.Unmarshal([]byte(config), &read))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.config, c.revision = config, read.Revision
}

func serveConfig(ts *testscript.TestScript, neg bool, args []string) {
	coreOf(ts, !neg && len(args) == 1, "serve-config CONFIG").serve(ts, args[0])
}

func coreAnswers(ts *testscript.TestScript, neg bool, args []string) {
	core := coreOf(ts, !neg && len(args) == 1, "core-answers STATUS")
	status, err := strconv.Atoi(args[0])
	ts.Check(err)
	core.mu.Lock()
	defer core.mu.Unlock()
	core.status = status
}

func coreHears(ts *testscript.TestScript, neg bool, args []string) {
	core := coreOf(ts, !neg && len(args) == 2, "core-hears REVISION REGEXP")
	revision, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	words, err := regexp.Compile(args[1])
	ts.Check(err)
	scripttest.Await(ts, "Core hears of revision "+args[0]+" and of "+args[1], func() bool {
		core.mu.Lock()
		defer core.mu.Unlock()
		return core.running == revision && words.MatchString(core.errors)
	})
}

func holdPort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hold-port PORT")
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", args[0]))
	ts.Check(err)
	ts.Defer(func() { _ = listener.Close() })
}

// routes are the node routes.
func (c *scriptCore) routes() http.Handler {
	mux := c.openRoutes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		status := c.status
		c.mu.Unlock()
		w.Header().Set(wire.HeaderCoreID, "core at "+r.Host) // each address is a Core of its own
		if status != 0 && r.URL.Path != wire.PathRegister {
			w.WriteHeader(status)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (c *scriptCore) openRoutes() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, status int, value any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(value) // the node has gone, then
	}
	mux.HandleFunc("POST "+wire.PathRegister, func(w http.ResponseWriter, r *http.Request) {
		var request wire.RegisterRequest
		switch err := json.NewDecoder(r.Body).Decode(&request); {
		case err != nil:
			answer(w, http.StatusBadRequest, map[string]string{"detail": err.Error()})
		case request.IP == "192.0.2.999":
			answer(w, http.StatusUnprocessableEntity, map[string]string{"code": "invalid_field", "detail": "ip: it is not an IP address"})
		case request.Code == "unknown":
			answer(w, http.StatusForbidden, map[string]string{"code": "code_unknown", "detail": "the code is not known"})
		case request.Code != "good":
			answer(w, http.StatusForbidden, map[string]string{"code": "code_used", "detail": "the code has been used"})
		default:
			answer(w, http.StatusOK, wire.RegisterResponse{AuthKey: "key of the node", NodeID: "7"})
		}
	})
	mux.HandleFunc("POST "+wire.PathHeartbeat, func(w http.ResponseWriter, r *http.Request) {
		var request wire.HeartbeatRequest
		err := json.NewDecoder(r.Body).Decode(&request)
		c.mu.Lock()
		defer c.mu.Unlock()
		if request.Revision != nil {
			c.running = *request.Revision
		}
		behind := err == nil && c.config != "" && (request.Revision == nil || *request.Revision != c.revision)
		answer(w, http.StatusOK, wire.HeartbeatResponse{OK: true, NeedSync: behind})
	})
	mux.HandleFunc("GET "+wire.PathConfig, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		c.mu.Lock()
		defer c.mu.Unlock()
		_, _ = io.WriteString(w, c.config)
	})
	mux.HandleFunc("POST "+wire.PathError, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // cut short, it does not match
		c.mu.Lock()
		defer c.mu.Unlock()
		c.errors += string(body) + "\n"
		answer(w, http.StatusOK, wire.OK{OK: true})
	})
	mux.HandleFunc("POST /", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, wire.OK{OK: true}) })
	return mux
}

func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport NAME")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	ts.Check(errors.Join(err, listener.Close()))
	ts.Setenv(args[0], port)
}

func setAside(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: set-aside STATE_DIR")
	}
	db, err := store.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	ts.Check(db.Report(now, wire.PathError, wire.ErrorRequest{Message: "the disk is full", Code: wire.CodeStoreFailed}))
	batch, found, err := db.Next(store.KindReports)
	ts.Check(err)
	if !found {
		ts.Fatalf("the report is not in its queue")
	}
	ts.Check(db.SetAside(now, batch, "Core answered 422"))
}

package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	golog "log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	xlog "github.com/xtls/xray-core/common/log"
	"github.com/xtls/xray-core/common/platform/filesystem"
	"github.com/xtls/xray-core/core"

	"nodeagent/internal/counters"
	"nodeagent/internal/descriptors"
	"nodeagent/internal/fault"
	"nodeagent/internal/filewatch"
	"nodeagent/internal/occupancy"
	"nodeagent/internal/ownpages"
	"nodeagent/xray/ipc"
	"nodeagent/xray/members"
	"nodeagent/xray/state"
	"nodeagent/xray/worker/certfiles"
	"nodeagent/xray/worker/confine"
	"nodeagent/xray/worker/guard"
	"nodeagent/xray/worker/heap"
	"nodeagent/xray/worker/inbound/wireguard"
	"nodeagent/xray/worker/life"
	"nodeagent/xray/worker/reach"
	"nodeagent/xray/worker/relay"
	"nodeagent/xray/worker/traffic"
	"nodeagent/xray/worker/transport/xhttp"
)

const (
	// firstDaemon is how long a worker waits for the daemon that has started it.
	firstDaemon = time.Minute
	// peersFile has where the peers of WireGuard are. It stands beside the counters file.
	peersFile = "wireguard-peers"
	// drainPoll is how often a drained worker checks whether its last stream has ended.
	drainPoll = 50 * time.Millisecond
	// drainGrace is how long a drained worker lives at least. A connection that it has
	// accepted may still be in its handshake, and have no stream yet.
	drainGrace = 5 * time.Second
	// After an operation with manyUsers or more users, and a pause of restAfter, the worker
	// gives memory back to the kernel.
	manyUsers = 500
	restAfter = time.Second
	// adoptedRest is that pause after another daemon has adopted the worker: perhaps a new worker takes over, and
	// both are in memory until this one ends.
	adoptedRest = 200 * time.Millisecond
)

// Run executes the requests of daemons that connect with the listener and prove that they know the
// secret, until a daemon ends the worker, a drain is over, or ctx ends; the process ends then. A
// worker whose daemon has died serves on, as ipc.Boot.Orphan says. log gets a line for each connection
// that is refused.
func Run(ctx context.Context, listener Listener, secret []byte, log io.Writer) error {
	// A daemon that has died reads standard error no longer.
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	daemons := accept(ctx, listener, secret, log)
	select {
	case first := <-daemons:
		return run(ctx, first, daemons)
	case <-time.After(firstDaemon):
		return errors.New("the daemon that started this worker has not connected")
	case <-ctx.Done():
		return nil
	}
}

// run executes the requests of the daemon at first, and of those at daemons after it.
func run(ctx context.Context, first *ipc.FrameConn, daemons <-chan *ipc.FrameConn) error {
	w := &server{queue: newMessageQueue(), daemons: daemons, conn: first}
	var request ipc.Request
	if err := first.Read(&request); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return fmt.Errorf("read first request: %w", err)
	}
	if request.Boot == nil {
		return errors.New("the first request is no boot")
	}
	if err := w.boot(ctx, request.Boot); err != nil {
		return errors.Join(err, first.Write(ipc.Message{ID: request.ID, Error: operationError(err)}))
	}
	defer w.exec.core.Close()

	var sending sync.WaitGroup
	sending.Go(w.queue.send)
	defer sending.Wait()
	defer w.queue.close()

	w.queue.attach(first)
	w.queue.answer(first, ipc.Message{ID: request.ID, Info: w.info()})
	return w.serve(ctx)
}

// server handles the requests of the daemon that is connected. A daemon that connects takes the
// place of the one before.
//
// The goroutine of Run calls serve: it answers pings and starts drains, so that pings are
// answered during an operation too. One receive for each connection owns its reading side.
// operate owns exec and executes operations one after the other. messageQueue.send owns the
// writing side of the connection. Any goroutine may push into queue, which never blocks. Only the
// goroutine of serve uses conn, orphan and draining. The other fields have no lock: boot sets
// them before the other goroutines start, except exec.later, which serve sets before it starts
// operate.
//
// The order of the end: a daemon ends the worker, or the last stream of a drain does. serve
// returns, and waits until operate has finished the operations that it has got. Then Run closes
// the queue, waits until all messages are written, and closes xray-core.
type server struct {
	queue   *messageQueue
	exec    *executor
	log     *lineLog // nil in a dry run, and before the instance has started
	daemons <-chan *ipc.FrameConn
	conn    *ipc.FrameConn // to the daemon; nil while there is none
	dryRun  bool
	orphan  ipc.Orphan
	// draining means that the worker takes no new connections any more.
	draining bool
	booted   time.Time
	crash    string // ipc.Boot.CrashOutput
	settings string // ipc.Boot.Settings
	// handed gets files from the daemon. confined says what confines this process.
	handed   *handedFiles
	confined string
	relay    *relay.Relay   // nil in a dry run, and where there can be none
	sparing  bool           // heap.Spare holds; operate ends it
	program  ownpages.Pages // given back while two workers are in memory, and in the one that drains
}

func (w *server) boot(ctx context.Context, boot *ipc.Boot) error {
	slots, err := counters.Open(boot.Counters)
	if err != nil {
		return err
	}
	if err := catchCrash(boot.CrashOutput); err != nil {
		return err
	}
	var table *occupancy.Table
	if !boot.DryRun {
		if err := slots.HoldShared(); err != nil {
			return err
		}
		table = w.joinWorkers(boot)
	}
	if w.sparing = boot.Beside; w.sparing {
		heap.Spare()
	}
	memory := heap.Available() // the files that tell are not to be read once the process is confined
	if err := w.confine(boot); err != nil {
		return err
	}
	if boot.DryRun && !boot.BaseRuns {
		if err := members.Base(boot.Base); err != nil {
			return err
		}
	}
	clients := traffic.NewRegistry(w.queue.push)
	clients.SlotOf = slots.Slot
	clients.Table = table
	if boot.IPv6Prefix > 0 {
		clients.IPv6Prefix = boot.IPv6Prefix
	}
	in, err := newInstance(ctx, boot.Base, clients)
	if err != nil {
		return err
	}
	in.resetKey, in.reach = boot.ResetKey, reach.New(boot.ClientNetworks)
	reach.Install(in.reach)
	w.dryRun, w.orphan, w.booted, w.crash, w.settings = boot.DryRun, boot.Orphan, time.Now().UTC(), boot.CrashOutput, boot.Settings
	w.exec = &executor{
		instance: in, slots: slots, dryRun: boot.DryRun, held: boot.Held, shells: map[string]state.Inbound{}, prepared: map[string]bool{},
		runs: state.State{Base: boot.Base},
	}
	if boot.DryRun {
		return nil
	}
	return w.start(ctx, memory)
}

// joinWorkers opens what the workers of one daemon share while one of them drains: places of limits,
// peers of WireGuard, and connections over QUIC, XHTTP and datagrams. The daemon is told what can't be
// shared; the worker serves without it. The table is nil where it can't be opened.
func (w *server) joinWorkers(boot *ipc.Boot) *occupancy.Table {
	folder := filepath.Dir(boot.Counters)
	table, err := occupancy.Open(filepath.Join(folder, occupancy.FileName))
	if err != nil {
		table = nil
		w.tell(ipc.Notice{Message: fmt.Sprintf("limits of connections and addresses hold for each worker by itself while another one drains: %v", err)})
	}
	if err := wireguard.Remember(filepath.Join(folder, peersFile)); err != nil {
		w.tell(ipc.Notice{Message: fmt.Sprintf("clients of WireGuard will notice after 15 seconds that another worker serves: %v", err)})
	}
	if table != nil && len(boot.ResetKey) > 0 {
		if w.relay, err = relay.New(table, boot.ResetKey); err != nil {
			w.tell(ipc.Notice{Message: fmt.Sprintf("connections over QUIC will begin anew when another worker takes over: %v", err)})
		}
		if err == nil {
			w.shareSources(folder, table, boot.ResetKey)
		}
		relay.Install(w.relay)
	}
	if w.relay != nil {
		if err := xhttp.Join(w.relay); err != nil {
			w.tell(ipc.Notice{Message: fmt.Sprintf("streams over XHTTP may break when another worker takes over: %v", err)})
		}
	}
	return table
}

// confine gives up what the worker does not need: the capability to administer the network, and files
// and sockets outside of its folders. The daemon hands over other files.
func (w *server) confine(boot *ipc.Boot) (err error) {
	var kept error // a worker that keeps a capability is better than none
	if !boot.NetAdmin {
		kept = confine.DropNetAdmin()
	}
	if w.program, err = ownpages.Find(); err != nil {
		w.tell(ipc.Notice{Message: fmt.Sprintf("the worker keeps the memory of its program's file: %v", err)})
	}
	w.handed = newHandedFiles(w.conn, w.queue.answer)
	filesystem.NewFileReader = w.handed.open // process-wide, as xray-core itself is
	if w.confined, err = confine.Restrict(confine.Paths{
		Read: append(assetFolders(), boot.ReadFolders...), Sockets: boot.SocketFolders, NetworkSettings: boot.NetAdmin,
		LeftOut: func(folder string, err error) {
			w.tell(ipc.Notice{Message: fmt.Sprintf("the worker can't use the folder %s: %v", folder, err)})
		},
	}); err != nil {
		return err
	}
	if kept != nil {
		w.confined += fmt.Sprintf("; it keeps CAP_NET_ADMIN: %v", kept)
	}
	return nil
}

// start starts xray-core and the goroutines beside it. memory is how many bytes the worker may use, as
// heap.Available says.
func (w *server) start(ctx context.Context, memory uint64) error {
	if err := w.exec.reach.Refresh(); err != nil {
		return err
	}
	go w.exec.reach.Follow(ctx)
	watch, err := filewatch.New()
	if err != nil {
		w.tell(ipc.Notice{Message: fmt.Sprintf("certificate and geo files are checked only once a minute, because they can't be watched: %v", err)})
	}
	w.exec.files, w.exec.watch, w.exec.tell = certfiles.New(watch, w.tell, w.handed.open), watch, w.tell
	xlog.RegisterHandler(&lineLog{tell: func(string) {}}) // xray-core's messages about its start are of no use
	go life.All.Run(ctx)
	go heap.Run(ctx, memory)
	go w.exec.clients.WatchGrants(ctx)
	if err := w.exec.core.Start(); err != nil {
		return fmt.Errorf("start xray instance: %w", err)
	}
	w.log = &lineLog{tell: func(line string) { w.queue.push(ipc.Message{Line: line}) }}
	xlog.RegisterHandler(w.log)
	golog.SetFlags(0)
	golog.SetOutput(w.log)
	if w.sparing {
		w.program.GiveBack()
	}
	return nil
}

// shareSources lets datagrams stay with the worker that serves their source.
func (w *server) shareSources(folder string, table *occupancy.Table, key []byte) {
	sources, err := relay.OpenSources(filepath.Join(folder, relay.SourcesFile), table, key)
	if err != nil {
		w.tell(ipc.Notice{Message: fmt.Sprintf("connections over mKCP and associations of SOCKS will begin anew when another worker takes over: %v", err)})
		return
	}
	w.relay.Share(sources)
}

func (w *server) tell(n ipc.Notice) { w.queue.push(ipc.Message{Notice: &n}) }

// catchCrash makes Go write the message and stack of a panic also into the file path, which
// the daemon reads after the worker has ended.
func catchCrash(path string) error {
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open crash output: %w", err)
	}
	defer file.Close() // SetCrashOutput has its own copy
	if err := debug.SetCrashOutput(file, debug.CrashOptions{}); err != nil {
		return fmt.Errorf("set crash output: %w", err)
	}
	return nil
}

func (w *server) info() *ipc.WorkerInfo {
	exhausted := descriptors.Exhausted()
	if exhausted == "" && w.log != nil {
		exhausted = w.log.takeExhausted()
	}
	refused := w.exec.clients.Refused.Counts()
	refused.Node = w.exec.reach.Denied()
	return &ipc.WorkerInfo{
		XrayVersion:        core.Version(),
		Build:              ipc.Build(),
		Processors:         runtime.GOMAXPROCS(0),
		Goroutines:         runtime.NumGoroutine(),
		Streams:            w.exec.clients.Streams.Load(),
		Refused:            refused,
		RefusedConnections: guard.Refused(),
		HeldBack:           time.Duration(w.exec.clients.HeldBack.Load()).Seconds(),
		Exhausted:          exhausted,
		Confined:           w.confined,
	}
}

func operationError(err error) *fault.Fault {
	if err == nil {
		return nil
	}
	if failure, ok := errors.AsType[*fault.Fault](err); ok {
		return failure
	}
	return fault.Of(err)
}

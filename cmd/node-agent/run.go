package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"nodeagent/agent"
	"nodeagent/agent/identity"
	"nodeagent/coreclient"
	"nodeagent/internal/counters"
	"nodeagent/internal/logkey"
	"nodeagent/internal/ownpages"
	"nodeagent/internal/secret"
	"nodeagent/internal/supervise"
	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/xray"
	"nodeagent/xray/ipc"
	"nodeagent/xray/worker/heap"
)

const (
	countersFile = "counters"
	telemtFolder = "telemt" // in the state folder
	// oldWorkerWait bounds how long the start waits for a worker of a daemon that crashed.
	oldWorkerWait = 10 * time.Second
)

func newRunCmd(std streams) *cobra.Command {
	var flags settingFlags
	cmd := &cobra.Command{
		Use:     "run",
		Short:   "Run the daemon: serve clients until SIGTERM or SIGINT",
		Long:    "Run the daemon: serve clients until SIGTERM or SIGINT. At SIGHUP it reads its configuration again, and\ncuts nobody; the log names what needs a restart. Where another version of node-agent is on the disk by\nthen, that takes over, in the same process. At SIGUSR2 the daemon ends and Xray serves on: the next\ndaemon goes on with it.",
		Example: "  node-agent run\n  node-agent run --state-dir ./state --runtime-dir ./run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := flags.load()
			if err != nil {
				return err
			}
			heap.Begin(heap.Available())
			ctx, leave := untilLeave(cmd.Context())
			defer leave(nil)
			err = runDaemon(ctx, leave, std, s, flags.load)
			switch cause := context.Cause(ctx); {
			case errors.Is(err, errGoBack):
				return execute(cmd.Context(), err, s.StateDir)
			case err == nil && (errors.Is(cause, errExecute) || errors.Is(cause, errGoBack)):
				return execute(cmd.Context(), cause, s.StateDir)
			}
			return err
		},
	}
	flags.add(cmd.Flags(), "config", "state-dir", "runtime-dir")
	return cmd
}

// runDaemon opens what the daemon needs, runs it until ctx ends, and closes everything in the
// reverse order. leave ends ctx. reload reads the settings again.
func runDaemon(ctx context.Context, leave func(error), std streams, s settings, reload func() (settings, error)) (err error) {
	log, level, err := s.logger(std)
	if err != nil {
		return err
	}
	signals, stopSignals := hangups()
	defer stopSignals()
	if err := checkRegistered(s.StateDir); err != nil {
		return err
	}
	ahead := agent.ReadAhead(s.StateDir, ipc.Build)
	db, err := store.Open(s.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	node, err := openIdentity(db, log)
	if err != nil {
		return err
	}
	unlock, err := lockRuntimeDir(s.RuntimeDir)
	if err != nil {
		return err
	}
	defer unlock()
	d := &running{settings: s, level: level, log: log, leave: leave, ahead: ahead}
	if err := d.onProbation(ctx, db); err != nil {
		return err
	}
	defer func() { d.probation.end(err) }()
	file, err := openCounters(s.RuntimeDir, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := d.build(ctx, node, db, file); err != nil {
		return err
	}
	a := d.agent
	stopStatus, err := serveStatus(s.RuntimeDir, a, db, node, log)
	if err != nil { // to serve clients is worth more than to show how that goes
		log.Error("no status socket: clients are served, and 'node-agent status' and 'outbox' find no daemon until this is mended and node-agent is started again", logkey.Error, err)
		a.StatusUnavailable(err)
		stopStatus = func() {}
	}
	defer stopStatus()
	d.tellGivenUp()
	defer serveMetrics(s.Metrics.Listen, newMetrics(a.Status), log)()
	warnOfResets(log)
	id := node.Identity()
	log.Info("node-agent runs", logkey.Version, version, logkey.Node, id.NodeID, logkey.Core, secret.URL(id.CoreURL))
	// They run until the daemon has ended: a stop that takes long does not hang.
	beside, stopBeside := context.WithCancel(context.WithoutCancel(ctx))
	var others sync.WaitGroup
	others.Go(func() { feedWatchdog(beside, a.Stuck, log) })
	others.Go(func() { showStatus(beside, a.Status) })
	others.Go(func() { d.reloadOnHangup(beside, signals, reload, db) })
	others.Go(func() { d.probation.pass(beside) })
	defer others.Wait()
	defer stopBeside()
	return a.Run(ctx)
}

// build makes the engines, which report to an inbox, and the agent, which reads it. The Xray engine
// has the workers of the daemon before then.
func (r *running) build(ctx context.Context, node *identity.Node, db *store.Store, file *counters.File) (err error) {
	inbox := agent.NewInbox()
	workerSecret, err := db.WorkerSecret()
	if err != nil { // to serve clients is worth more than to go on with what runs
		r.log.Error("the state folder keeps no secret for the workers: those that run now end, and so will those of this daemon with it", logkey.Error, err)
		workerSecret = []byte(rand.Text())
	}
	if r.xray, err = r.newXray(workerSecret, inbox); err != nil {
		return err
	}
	adopted, err := takeOver(ctx, r.xray, db, file, r.settings, r.log)
	if err != nil {
		return err
	}
	if r.mtproto, err = newMTProto(r.settings, inbox, file, r.log); err != nil {
		return err
	}
	node.SetUserAgent(func() string { return userAgent(r.mtproto.Version()) })
	defer func() { r.ahead = nil }() // the agent has it
	r.agent, err = agent.New(r.settings.agentConfig(node.Identity().IP), agent.Deps{
		Log: r.log.With(logkey.Component, "agent"), Core: node, CoreChanged: node.Changed(), CoreID: coreID(node), Store: db, Counters: file,
		Inbox: inbox, Xray: r.xray, MTProto: r.mtproto, Build: ipc.Build(), Ahead: r.ahead, Adopted: adopted, Ready: func() { notify(daemon.SdNotifyReady) },
		MemoryFreed: func() {
			pages, err := ownpages.Find()
			pages.GiveBack()
			if err != nil {
				r.log.Debug("give back the memory of the program's file", logkey.Error, err)
			}
		},
	})
	return err
}

// coreID says which Core is asked: another one, one that was restored, or one at another address
// where it does not say who it is.
func coreID(node *identity.Node) func() string {
	return func() string {
		id := node.Identity()
		if id.Core.ID == "" {
			return id.CoreURL
		}
		return fmt.Sprintf("%s %d", id.Core.ID, id.Core.Epoch)
	}
}

// openIdentity reads who this node is, and makes the client for its Core.
func openIdentity(db *store.Store, log *slog.Logger) (*identity.Node, error) {
	id, err := db.Identity()
	if err != nil {
		return nil, err
	}
	machine, err := identity.ThisMachine(id.NodeID)
	if err != nil {
		return nil, err
	}
	boot := rand.Text() // which daemon speaks: two that use one key are seen by it
	return identity.Open(db, func(id store.Identity, userAgent func() string) (identity.Core, error) {
		return coreclient.New(coreclient.Config{
			CoreURL: id.CoreURL, Pin: id.Pin, CAPEM: id.CAPEM, AuthKey: id.AuthKey, UserAgent: userAgent, Boot: boot, Machine: machine,
		}, log.With(logkey.Component, "coreclient"))
	}, machine, log.With(logkey.Component, "identity"))
}

// ownFile is the file that this process was started from, also after another one has taken its
// place in the folder (proc_pid_exe(5)).
const ownFile = "/proc/self/exe"

// resetKey makes ipc.Boot.ResetKey. It follows from the secret of the workers, which stays as long as
// the state folder does: the auth key changes while node-agent runs, and workers with two keys would
// not pass datagrams to each other.
func resetKey(workerSecret []byte) []byte {
	sum := hmac.New(sha256.New, workerSecret)
	_, _ = sum.Write([]byte("stateless resets of QUIC")) // never fails
	return sum.Sum(nil)
}

// newXray makes the Xray engine, which reports to the inbox.
func (r *running) newXray(workerSecret []byte, inbox *agent.Inbox) (*xray.Engine, error) {
	s := r.settings
	return xray.New(xray.Config{
		Worker: supervise.Spec{
			Path: ownFile, Name: programName, Args: []string{workerCommand},
			Env: []string{"PATH=" + os.Getenv("PATH"), "XRAY_LOCATION_ASSET=" + s.Xray.AssetDir},
		},
		CountersPath: filepath.Join(s.RuntimeDir, countersFile),
		DrainTimeout: s.Xray.DrainTimeout.Duration, OrphanTimeout: s.Xray.OrphanTimeout.Duration,
		ResetKey: resetKey(workerSecret), Secret: workerSecret, IPv6Prefix: s.Xray.IPv6Prefix,
		ClientNetworks: prefixes(s.Xray.ClientNetworks),
	}, xray.Deps{
		Log:      r.log.With(logkey.Component, "xray"),
		Presence: inbox.XrayPresence, SlotsClosed: inbox.SlotsClosed, Failed: inbox.XrayFailed, Unfit: r.unfit,
	})
}

// newMTProto makes the MTProto engine, which reports to the inbox and counts into the file
// as the Xray worker does.
func newMTProto(s settings, inbox *agent.Inbox, file *counters.File, log *slog.Logger) (*telemt.Engine, error) {
	dir, err := filepath.Abs(filepath.Join(s.StateDir, telemtFolder))
	if err != nil {
		return nil, fmt.Errorf("find the state folder: %w", err)
	}
	config := s.telemtConfig(dir)
	config.CountersEpoch = file.Epoch()
	return telemt.New(config, telemt.Deps{
		Log: log.With(logkey.Component, "telemt"), Octets: file.Read,
		Count: func(number uint32, up, down uint64) {
			slot, err := file.Slot(number)
			if err != nil { // the agent made room before it gave the slot out
				log.Error("count MTProto traffic", logkey.Error, err, logkey.Up, up, logkey.Down, down)
				return
			}
			slot.Up.Add(up)
			slot.Down.Add(down)
		},
		Counted: func(number uint32) uint64 {
			up, _ := file.Read(number)
			return up
		},
		Presence: inbox.MTProtoPresence, SlotsClosed: inbox.SlotsClosed, Failed: inbox.MTProtoFailed, Noted: inbox.MTProtoNoted,
	})
}

// migrateRequests is the kernel setting that moves connections whose handshake is not complete
// to the next listener on their port.
const migrateRequests = "/proc/sys/net/ipv4/tcp_migrate_req"

// warnOfResets warns where the kernel resets such connections when an inbound is replaced.
func warnOfResets(log *slog.Logger) {
	if set, err := os.ReadFile(migrateRequests); err == nil && strings.TrimSpace(string(set)) == "0" {
		log.Warn("replacing an inbound resets connections whose handshake is not complete; set net.ipv4.tcp_migrate_req=1 (packaging/90-node-agent.conf)")
	}
}

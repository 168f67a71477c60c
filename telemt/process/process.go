package process

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"nodeagent/internal/logkey"
	"nodeagent/internal/supervise"
	"nodeagent/telemt/api"
	"nodeagent/telemt/service"
)

const (
	// startPoll is how often a starting telemt is asked whether it is up.
	startPoll = 50 * time.Millisecond
	// stopGrace is the time that telemt gets to end its sessions. It takes 12 s at most.
	stopGrace = 15 * time.Second
	// lastReadPause is how often the counters are read while telemt ends.
	lastReadPause = 100 * time.Millisecond
	// startTries is how often telemt is started with other ports for its API and
	// metrics, if another process has taken one of them. telemt goes on without them.
	startTries = 3
	// apiDelay is the longest time between telemt listening for clients and its API
	// answering.
	apiDelay = 3 * time.Second
)

// Process is one running telemt. Only one goroutine may use it, except for Output.
type Process struct {
	*supervise.Process
	Release  Release
	Settings service.NodeSettings
	API      *api.Client
	Output   *Output
	Started  time.Time
	ended    chan struct{} // closed once the process has ended and its output is read
	left     chan struct{} // closed by Leave
}

// Spec says what to start.
type Spec struct {
	Release Release
	Folder  Folder
	Desired service.Desired
	// Render returns the text of telemt's file for the settings that Start has chosen.
	Render func(service.NodeSettings) ([]byte, error)
	// Alone means that telemt ends with this daemon: no other one adopts it.
	Alone bool
	// Starting is called with the settings before telemt is started; it may be nil.
	Starting func(service.NodeSettings)
}

// errPortsTaken means that telemt serves clients, but the node can't reach its API or its
// metrics.
var errPortsTaken = errors.New("telemt listens, but its API or its metrics do not answer")

// Start writes telemt's file, starts telemt, and returns once it serves. The caller stops
// the Process. telemt's own output goes to log, without secrets. If telemt does not
// start, it does not run any more when Start returns; the error is an *service.ApplyError
// if telemt or the inbound's port is the reason.
func Start(ctx context.Context, spec Spec, log *slog.Logger) (p *Process, err error) {
	for range startTries {
		p, err = startOnce(ctx, spec, log)
		if !errors.Is(err, errPortsTaken) {
			break
		}
		log.Warn("the ports of telemt's API or metrics were taken by another process; trying other ports")
	}
	return p, err
}

func startOnce(ctx context.Context, spec Spec, log *slog.Logger) (*Process, error) {
	in := spec.Desired.Inbound
	if err := CheckPorts(in); err != nil {
		return nil, err
	}
	settings, err := newSettings(spec)
	if err != nil {
		return nil, err
	}
	config, err := spec.Render(settings)
	if err != nil {
		return nil, err
	}
	// The file has to be there before telemt starts. Otherwise telemt writes one, with a
	// user of its own.
	if err := spec.Folder.Write(config); err != nil {
		return nil, err
	}
	p := &Process{
		Release:  spec.Release,
		Settings: settings,
		API:      api.New(api.Endpoints{API: settings.APIAddr, Metrics: settings.MetricsAddr, Authorization: settings.APIAuthorization}),
		Output:   newOutput(spec.Desired),
		Started:  time.Now(),
	}
	if spec.Starting != nil {
		spec.Starting(settings)
	}
	output, err := spec.Folder.openOutput()
	if err != nil {
		return nil, err
	}
	defer output.Close()
	ignoreFileBound()
	p.Process, err = supervise.Start(supervise.Spec{
		Path: spec.Release.Path, DiesWithParent: spec.Alone,
		Args:   spec.Folder.arguments(),
		Dir:    string(spec.Folder),
		Env:    []string{"RUST_LOG=info,telemt::links=off"}, // the links have secrets
		Output: output,
	})
	if err != nil {
		return nil, &service.ApplyError{Code: service.FailureApply, Tag: in.Tag, Message: err.Error()}
	}
	if err := boundFiles(p.PID()); err != nil {
		log.Warn("telemt's output may fill the disk while no daemon runs", logkey.Error, err)
	}
	if err := p.follow(spec.Folder.output(), true, log); err != nil {
		p.Kill()
		<-p.Process.Done()
		return nil, err
	}
	if err := p.waitReady(ctx, in); err != nil {
		p.Kill()
		<-p.Done()
		return nil, err
	}
	return p, nil
}

// newSettings chooses free ports and new secrets.
func newSettings(spec Spec) (service.NodeSettings, error) {
	apiAddr, err := freeLoopback()
	if err != nil {
		return service.NodeSettings{}, err
	}
	metricsAddr, err := freeLoopback()
	if err != nil {
		return service.NodeSettings{}, err
	}
	return service.NodeSettings{
		DataDir: spec.Folder.data(), APIAddr: apiAddr, MetricsAddr: metricsAddr,
		APIAuthorization: "Bearer " + randomHex(32), SentinelSecret: randomHex(16), Writable: spec.Release.CanReload(),
	}, nil
}

// randomHex returns size random bytes as hex digits.
func randomHex(size int) string {
	raw := make([]byte, size)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}

// waitReady waits until telemt's API and metrics answer, and then checks that telemt
// listens on the inbound's port. telemt opens its API only after it has tried to listen.
func (p *Process) waitReady(ctx context.Context, in service.Inbound) error {
	poll := time.NewTicker(startPoll)
	defer poll.Stop()
	var listening time.Time // since when it listens for clients; zero if it does not
	for {
		_, err := p.API.ReloadCount(ctx)
		if err == nil {
			_, err = p.API.Metrics(ctx) // telemt goes on if it can't listen on one of the two
		}
		if err == nil && p.strangerAnswers() {
			return errPortsTaken
		}
		if err == nil {
			break
		}
		select {
		case <-p.Done():
			reason := p.Output.ExitReason()
			failure := startError(in, "telemt ended while it started: "+reason)
			failure.Final, failure.Ended = strings.Contains(reason, configError), true
			return failure
		case <-ctx.Done():
			return startError(in, fmt.Sprintf("telemt does not come up: %v: %s", context.Cause(ctx), p.Output.ExitReason()))
		case <-poll.C:
		}
		switch {
		case time.Since(p.Started) < apiDelay:
		case !isListening(in.Address()):
			listening = time.Time{}
		case listening.IsZero():
			listening = time.Now()
		case time.Since(listening) > apiDelay:
			return errPortsTaken
		}
	}
	// telemt goes on if it can't listen on the inbound's port. The port is free then.
	if err := CheckPorts(in); err == nil {
		return startError(in, fmt.Sprintf("telemt runs but does not listen on port %d: %s", in.Port, p.Output.ExitReason()))
	}
	return nil
}

// strangerAnswers reports whether another process listens on the address of telemt's metrics,
// for instance the telemt of another inbound that was started at the same moment. Its bytes
// would be counted instead of telemt's. The API needs no such check, since it asks for a
// password. Where /proc can't be read, nothing is known against the answer.
func (p *Process) strangerAnswers() bool {
	at, err := netip.ParseAddrPort(p.Settings.MetricsAddr)
	if err != nil {
		return false
	}
	own, err := p.Listens(at)
	return err == nil && !own
}

// configError is in telemt's last words where it refuses its file (telemt, src/error.rs,
// ProxyError::Config).
const configError = "Config error"

func startError(in service.Inbound, problem string) *service.ApplyError {
	return &service.ApplyError{Code: service.FailureApply, Tag: in.Tag, Port: in.Port, Message: fmt.Sprintf("mtproto inbound %q: %s", in.Tag, problem)}
}

// Stop ends the process and returns once it has ended. Until then the counters are read
// again and again and given to read, because telemt's sessions move bytes while they are
// being ended.
func (p *Process) Stop(ctx context.Context, read func(api.Sample)) {
	readOnce := func() {
		ctx, cancel := context.WithTimeout(ctx, api.Timeout)
		defer cancel()
		if s, err := p.API.Metrics(ctx); err == nil {
			read(s)
		}
	}
	readOnce()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.Process.Stop(stopGrace)
		<-p.ended
	}()
	pause := time.NewTicker(lastReadPause)
	defer pause.Stop()
	for {
		select {
		case <-ended:
			return
		case <-pause.C:
			readOnce()
		}
	}
}

package process

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/supervise"
	"nodeagent/telemt/api"
	"nodeagent/telemt/service"
)

const (
	// startPoll is how often a telemt that starts is asked whether it is up.
	startPoll = 50 * time.Millisecond
	// stopGrace is telemt's own bound for ending its sessions, and some more.
	stopGrace = 15 * time.Second
	// lastReadPause is how often the counters of a telemt that ends are read.
	lastReadPause = 100 * time.Millisecond
)

// Process is one running telemt. It is used by one goroutine.
type Process struct {
	*supervise.Process
	Release  Release
	Settings service.NodeSettings
	API      *api.Client
	Output   *Output
	Started  time.Time
}

const (
	// startTries is how often other ports are tried where somebody took one of the
	// API's or the metrics' before telemt did, which goes on without them.
	startTries = 3
	// apiDelay is how soon the API answers once telemt listens, at the most.
	apiDelay = 3 * time.Second
)

// errPortsTaken means that telemt serves clients, and not us.
var errPortsTaken = errors.New("telemt listens, and its API or metrics do not answer")

// Start starts telemt in the folder with the file that configure makes for its
// place, and returns once it serves, or has failed. Whoever gets it stops it.
func Start(ctx context.Context, r Release, at Folder, to service.Desired, configure func(service.NodeSettings) ([]byte, error), log *slog.Logger) (p *Process, err error) {
	for range startTries {
		p, err = startOnce(ctx, r, at, to, configure, log)
		if !errors.Is(err, errPortsTaken) {
			break
		}
		log.Warn("telemt could not have the ports of its API and metrics; trying others")
	}
	return p, err
}

func startOnce(ctx context.Context, r Release, at Folder, to service.Desired, configure func(service.NodeSettings) ([]byte, error), log *slog.Logger) (*Process, error) {
	in := to.Inbound
	if err := CheckPort(in.Tag, in.Address()); err != nil {
		return nil, err
	}
	settings, err := newSettings(at, r)
	if err != nil {
		return nil, err
	}
	config, err := configure(settings)
	if err != nil {
		return nil, err
	}
	// The file first: where there is none telemt makes one, with a user of its
	// own.
	if err := at.Write(config); err != nil {
		return nil, err
	}
	p := &Process{Release: r, Settings: settings, API: api.New(api.Endpoints{API: settings.APIAddr, Metrics: settings.MetricsAddr, Authorization: settings.APIAuthorization}), Output: newOutput(to), Started: time.Now()}
	p.Process, err = supervise.Start(supervise.Spec{
		Path: r.Path, Args: []string{"run", "--data-path", settings.DataDir, at.Config()}, Dir: string(at),
		Env:  []string{"RUST_LOG=info,telemt::links=off"}, // links have the secrets
		Line: func(line string) { logLine(log, p.Output.add(line)) },
	})
	if err != nil {
		return nil, &service.ApplyError{Code: service.FailureApply, Tag: in.Tag, Message: err.Error()}
	}
	if err := p.waitReady(ctx, in); err != nil {
		p.Kill()
		<-p.Done()
		return nil, err
	}
	return p, nil
}

func logLine(log *slog.Logger, line string) {
	if strings.Contains(line, " WARN ") || strings.Contains(line, " ERROR ") || strings.HasPrefix(line, "[telemt] ") {
		log.Warn("telemt says", "line", line)
		return
	}
	log.Debug("telemt says", "line", line)
}

func newSettings(at Folder, r Release) (service.NodeSettings, error) {
	apiAddr, err := freeLoopback()
	if err != nil {
		return service.NodeSettings{}, err
	}
	metricsAddr, err := freeLoopback()
	if err != nil {
		return service.NodeSettings{}, err
	}
	return service.NodeSettings{
		DataDir: at.data(), APIAddr: apiAddr, MetricsAddr: metricsAddr,
		APIAuthorization: "Bearer " + randomHex(32), SentinelSecret: randomHex(16), Writable: r.CanReload(),
	}, nil
}

func randomHex(size int) string {
	raw := make([]byte, size)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}

func freeLoopback() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port for telemt's API: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// waitReady waits until telemt's API answers, which it does only once its listeners
// are up, and then whether they really are.
func (p *Process) waitReady(ctx context.Context, in service.Inbound) error {
	poll := time.NewTicker(startPoll)
	defer poll.Stop()
	var listens time.Time // since when it does, or zero
	for {
		_, err := p.API.ReloadCount(ctx)
		if err == nil {
			_, err = p.API.Metrics(ctx) // telemt goes on without a port that it could not bind
		}
		if err == nil {
			break
		}
		select {
		case <-p.Done():
			return &service.ApplyError{Code: service.FailureApply, Tag: in.Tag, Port: in.Port, Message: fmt.Sprintf("mtproto inbound %q: telemt ended while it started: %s", in.Tag, p.Output.ExitReason())}
		case <-ctx.Done():
			return &service.ApplyError{Code: service.FailureApply, Tag: in.Tag, Port: in.Port, Message: fmt.Sprintf("mtproto inbound %q: telemt does not come up: %v: %s", in.Tag, context.Cause(ctx), p.Output.ExitReason())}
		case <-poll.C:
		}
		switch {
		case time.Since(p.Started) < apiDelay:
		case !isListening(in.Address()):
			listens = time.Time{}
		case listens.IsZero():
			listens = time.Now()
		case time.Since(listens) > apiDelay:
			return errPortsTaken
		}
	}
	// telemt goes on without a port that it could not bind, and its exit code
	// would tell nothing: whoever can bind it finds it free.
	if err := CheckPort(in.Tag, in.Address()); err == nil {
		return &service.ApplyError{Code: service.FailureApply, Tag: in.Tag, Port: in.Port, Message: fmt.Sprintf("mtproto inbound %q: telemt runs but does not listen on port %d: %s", in.Tag, in.Port, p.Output.ExitReason())}
	}
	return nil
}

// isListening tells whether somebody listens at the address. It binds nothing, which
// telemt might be about to do.
func isListening(at netip.AddrPort) bool {
	if at.Addr().IsUnspecified() {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if at.Addr().Is6() {
			loopback = netip.IPv6Loopback()
		}
		at = netip.AddrPortFrom(loopback, at.Port())
	}
	conn, err := net.DialTimeout("tcp", at.String(), time.Second)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// CheckPort returns nil where the address is free, and else why not.
func CheckPort(tag string, at netip.AddrPort) error {
	network := "tcp4"
	if at.Addr().Is6() {
		network = "tcp6"
	}
	listener, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(at))
	if err == nil {
		return listener.Close()
	}
	failure := &service.ApplyError{Code: service.FailureApply, Tag: tag, Port: at.Port()}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		failure.Code = service.FailurePortInUse
		failure.Message = fmt.Sprintf("mtproto inbound %q: port %d (%s) is held by another process; find it with 'ss -lnp sport = :%d', then stop it or choose another port", tag, at.Port(), at, at.Port())
	case errors.Is(err, unix.EACCES):
		failure.Message = fmt.Sprintf("mtproto inbound %q: port %d may not be bound: the service needs CAP_NET_BIND_SERVICE", tag, at.Port())
	default:
		failure.Message = fmt.Sprintf("mtproto inbound %q: listen on %s: %v", tag, at, err)
	}
	return failure
}

// Stop ends the process. Its counters go to read until the end: sessions move
// bytes while telemt says good-bye to them.
func (p *Process) Stop(ctx context.Context, read func(api.Sample)) {
	scrape := func() {
		ctx, cancel := context.WithTimeout(ctx, api.Timeout)
		defer cancel()
		if s, err := p.API.Metrics(ctx); err == nil {
			read(s)
		}
	}
	scrape()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.Process.Stop(stopGrace)
	}()
	pause := time.NewTicker(lastReadPause)
	defer pause.Stop()
	for {
		select {
		case <-ended:
			return
		case <-pause.C:
			scrape()
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"nodeagent/internal/counters"
	"nodeagent/internal/logkey"
	"nodeagent/internal/supervise"
	"nodeagent/store"
	"nodeagent/xray"
)

// untilLeave returns a context that also ends at SIGUSR2, with the cause supervise.ErrLeave:
// systemd sends it before a restart (RestartKillSignal=). leave ends the context with another cause.
func untilLeave(ctx context.Context) (_ context.Context, leave func(cause error)) {
	ctx, end := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	go func() {
		select {
		case <-signals:
			end(supervise.ErrLeave)
		case <-ctx.Done():
		}
	}()
	return ctx, func(cause error) {
		if cause == nil {
			signal.Stop(signals)
		}
		end(cause)
	}
}

// takeOver lets the engine adopt the workers of the daemon before. Workers and telemts are ended where
// the state does not say what they count: no other client may get their slots. Afterwards nobody counts
// but adopted workers, and telemts that the MTProto engine adopts.
func takeOver(ctx context.Context, engine *xray.Engine, db *store.Store, file *counters.File, s settings, log *slog.Logger) (adopted xray.Adopted, err error) {
	if reason := unusable(db); reason != "" {
		ended, err := endLeft(s, oldWorkerWait)
		if ended > 0 || err != nil {
			log.Warn("the workers of the daemon before are ended", logkey.Reason, reason, logkey.Workers, ended, logkey.Error, err)
		}
	} else if adopted, err = engine.Adopt(ctx, file.Epoch()); err != nil {
		log.Error("look for workers of the daemon before", logkey.Error, err)
	}
	if adopted.Workers > 0 {
		return adopted, nil
	}
	ctx, cancel := context.WithTimeout(ctx, oldWorkerWait)
	defer cancel()
	if err := file.AwaitNoWriter(ctx); err != nil {
		return adopted, fmt.Errorf("%w; an xray-worker of the previous daemon does not end; end it (pgrep -f %s)", err, workerCommand)
	}
	return adopted, nil
}

// unusable says why the state is not what the workers count by; empty where it is.
func unusable(db *store.Store) string {
	history, err := db.History()
	if err != nil || history.Current == nil {
		return "the state has no configuration that they could run"
	}
	if damaged, err := db.Unreported(); err != nil || len(damaged) > 0 {
		return "the state file is damaged"
	}
	return ""
}

// openCounters opens the counters file of the previous daemon, or makes a new one. Workers may
// count into it. The caller closes it.
func openCounters(dir string, log *slog.Logger) (*counters.File, error) {
	path := filepath.Join(dir, countersFile)
	file, err := counters.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return counters.Create(path)
	case errors.Is(err, counters.ErrDamaged):
		log.Error("the counters file of the previous run cannot be used; what was counted since its last read is lost", logkey.Error, err)
		return counters.Create(path)
	}
	return file, err
}

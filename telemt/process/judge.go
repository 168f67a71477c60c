package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"nodeagent/internal/logkey"
	"nodeagent/telemt/service"
)

// judgeWait is how long a telemt that is started to judge a configuration may take. telemt reads
// its file first, and refuses it at once; before it listens it may ping Telegram's centres for
// half a minute, which says nothing about the file.
const judgeWait = 3 * time.Second

// Judge asks telemt whether it takes a configuration, without touching the one that serves: it
// starts another telemt with it, on a port of loopback and with a folder of its own, and ends it
// again. The error is an *service.ApplyError with telemt's words where telemt refuses the
// configuration or ends over it. render is Spec.Render.
func Judge(ctx context.Context, spec Spec, log *slog.Logger) error {
	spec.Folder, spec.Alone = Folder(string(spec.Folder)+".trial"), true
	defer func() { _ = spec.Folder.Remove() }() // the next one uses it again
	if err := spec.Folder.Make(); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	spec.Desired.Inbound.Listen, spec.Desired.Inbound.Port = "127.0.0.1", port
	desired := spec.Desired
	spec.Render = func(settings service.NodeSettings) ([]byte, error) { return desired.Render(settings) }
	ctx, cancel := context.WithTimeout(ctx, judgeWait)
	defer cancel()
	p, err := startOnce(ctx, spec, log.With(logkey.Trial, true))
	if err == nil {
		p.Kill()
		<-p.Done()
		return nil
	}
	refusal, is := errors.AsType[*service.ApplyError](err)
	if !is || !refusal.Ended {
		return nil // it is still starting, which says nothing
	}
	refusal.Message = fmt.Sprintf("%s; nothing was changed", refusal.Message)
	return refusal
}

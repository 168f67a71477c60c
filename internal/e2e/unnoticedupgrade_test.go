package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

var second struct {
	once sync.Once
	path string
	err  error
}

// secondBuild returns a node-agent of the same source and another build (see buildFaulty).
func secondBuild(first Programs) (string, error) {
	second.once.Do(func() {
		dir := filepath.Join(filepath.Dir(first.Agent), "second")
		if second.err = os.MkdirAll(dir, 0o755); second.err == nil {
			second.path, second.err = buildFaulty(context.Background(), dir)
		}
	})
	return second.path, second.err
}

func anotherBuild(t *testing.T) string {
	t.Helper()
	path, err := secondBuild(programs(t))
	must(t, err)
	return path
}

// A new build takes over while the clients move bytes over TCP, QUIC and mKCP, and datagrams, and the build
// before it again.
func TestUnnoticedUpgrade(t *testing.T) {
	if !migrating(t) {
		return
	}
	u := newUnnoticed(t, unnoticedRows(), func(u *unnoticed) { u.flowing = func(protocolRow) bool { return true } })
	first, second := u.agent.path, anotherBuild(t)
	pids := map[int]bool{}
	for round := range 2 * u.rounds {
		must(t, u.agent.Leave())
		u.agent.path = map[bool]string{true: second, false: first}[round%2 == 0]
		must(t, u.agent.Start(u.ctx))
		must(t, Eventually(u.ctx, func() error {
			now, err := u.agent.Status(u.ctx)
			if err == nil && (now.Engines.Xray.State != "running" || now.Engines.Xray.AdoptedAt != "" || pids[now.Engines.Xray.PID]) {
				err = errors.New("no worker of the new build has taken over")
			}
			pids[now.Engines.Xray.PID] = err == nil
			return err
		}))
		u.goOn()
		if t.Failed() {
			return
		}
	}
	u.counted()
	u.wantVisits(u.user)
}

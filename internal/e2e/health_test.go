package e2e

import (
	"fmt"
	"strings"
	"testing"

	"nodeagent/coreclient/wire"
)

// Core shows the warnings of a node, and they are no error: here a REALITY inbound whose borrowed
// site is away, which is applied and lets nobody in.
func TestCoreShowsHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone, err := FreePort()
	must(t, err)
	p := w.protocol("--security", "reality", "--sni", "site.test", "--dest", loopback(gone))
	w.subscriber("alice")
	w.start()
	var node struct {
		Status    string              `json:"status"`
		LastError *string             `json:"lastError"`
		Health    *wire.StatusRequest `json:"health"`
	}
	must(t, Within(t.Context(), 2*Patience, func() error {
		if err := w.core.Do(w.ctx, &node, "node", "show", "node"); err != nil {
			return err
		}
		if node.Health == nil || len(node.Health.Inbounds) != 1 || len(node.Health.Warnings) == 0 {
			return fmt.Errorf("the health is %+v", node.Health)
		}
		return nil
	}))
	in := node.Health.Inbounds[0]
	if in.Tag != p.Tag || in.State != wire.HealthDegraded || !strings.Contains(in.Reason, "the site cannot be reached") || node.Health.Versions.Xray == "" {
		t.Errorf("the health is %+v", node.Health)
	}
	if node.Status != "active" && node.Status != "online" || node.LastError != nil {
		t.Errorf("the node is %s, its last error %v", node.Status, node.LastError)
	}
}

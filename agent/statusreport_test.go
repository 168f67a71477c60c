package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/xray"
)

// statusNode is a node whose Core has answered a heartbeat, and the reports that it takes.
func statusNode(t *testing.T) (n *node, took func() []wire.StatusRequest) {
	t.Helper()
	n = newNode(t, openStore(t))
	var reports []wire.StatusRequest
	n.core.statuses = func(body []byte) error {
		var report wire.StatusRequest
		if err := json.Unmarshal(body, &report); err != nil {
			t.Error(err)
		}
		reports = append(reports, report)
		return nil
	}
	return n, func() []wire.StatusRequest { return reports }
}

func newStatusReporter() *statusReporter {
	return &statusReporter{since: map[string]wire.InboundHealth{}}
}

// The status goes to Core when it changes, and not more often than every half minute.
func TestStatusIsReportedWhenItChanges(t *testing.T) {
	n, took := statusNode(t)
	synctest.Test(t, func(t *testing.T) {
		r := newStatusReporter()
		step := func(d time.Duration) {
			time.Sleep(d)
			n.reportStatus(t.Context(), r, time.Now())
		}
		step(0)
		if len(took()) > 0 {
			t.Fatal("a status went to a Core that has not answered a heartbeat")
		}
		n.link.Heartbeat(nil)
		began := time.Now().UTC().Truncate(time.Second)
		n.engine.warnings = []string{"the certificate ends tomorrow"}
		n.engine.status = xray.Status{State: "running", Version: "26.7.28", Inbounds: []xray.InboundStatus{
			{Tag: "vless-1", Protocol: "vless", State: "running"}, {Tag: "trojan-2", Protocol: "trojan", State: "failed", Error: "its port is taken"},
		}}
		step(0)
		for range 100 {
			step(statusPoll)
		}
		if got := took(); len(got) != 1 {
			t.Fatalf("%d reports of one status", len(got))
		}
		got := took()[0]
		want := []wire.InboundHealth{
			{Tag: "trojan-2", Protocol: "trojan", State: wire.HealthFailed, Since: began, Reason: "its port is taken"},
			{Tag: "vless-1", Protocol: "vless", State: wire.HealthReady, Since: began},
		}
		if fmt.Sprint(got.Inbounds) != fmt.Sprint(want) || got.Warnings[0] != "the certificate ends tomorrow" || got.Versions.Xray != "26.7.28" {
			t.Errorf("got %+v", got)
		}
		for i := range 12 { // it changes every five seconds, for a minute
			n.engine.warnings = []string{fmt.Sprintf("warning %d", i)}
			step(statusPoll)
		}
		if got := len(took()); got < 2 || got > 4 {
			t.Errorf("%d reports of a minute of changes", got-1)
		}
		n.engine.status.Inbounds[0].Degraded = "its site is away"
		step(statusPause)
		last := took()[len(took())-1].Inbounds[1]
		if last.State != wire.HealthDegraded || last.Reason != "its site is away" || !last.Since.Equal(time.Now().UTC().Truncate(time.Second)) {
			t.Errorf("got %+v", last)
		}
	})
}

// A Core without the route is asked twice, since one answer can be that of a proxy, and then
// once a day. Another Core is asked at once. After heartbeats that failed, Core may have been
// upgraded, and is asked within an hour.
func TestACoreWithoutStatusRests(t *testing.T) {
	n, _ := statusNode(t)
	synctest.Test(t, func(t *testing.T) {
		core, asked := "one", 0
		answer := status(405)
		n.coreID = func() string { return core }
		n.core.statuses = func([]byte) error {
			asked++
			return answer
		}
		r := newStatusReporter()
		pass := func(d time.Duration) (newly int) {
			before := asked
			for end := time.Now().Add(d); time.Now().Before(end); {
				time.Sleep(statusPoll)
				n.link.Heartbeat(nil)
				n.reportStatus(t.Context(), r, time.Now())
			}
			return asked - before
		}
		if got := pass(20 * time.Hour); got != 2 {
			t.Errorf("a Core without the route was asked %d times in 20 hours", got)
		}
		if got := pass(9 * 24 * time.Hour); got != 9 {
			t.Errorf("a Core without the route was asked %d times in 9 days", got)
		}
		core = "another"
		if got := pass(time.Minute); got != 1 {
			t.Errorf("another Core was asked %d times in a minute", got)
		}
		pass(5 * time.Minute)
		n.link.Heartbeat(errors.New("connection refused")) // it restarts
		if got := pass(50 * time.Minute); got != 0 {
			t.Errorf("a Core that has restarted was asked %d times within the hour", got)
		}
		answer = nil
		if got := pass(15 * time.Minute); got != 1 {
			t.Errorf("a Core that was upgraded got %d reports", got)
		}
		n.engine.warnings = []string{"the certificate ends tomorrow"}
		if got := pass(time.Minute); got != 1 {
			t.Errorf("a Core that was upgraded got %d reports of a change", got)
		}
	})
}

// A report is bounded, and says what it leaves out.
func TestStatusIsBounded(t *testing.T) {
	n, _ := statusNode(t)
	for i := range 2 * maxStatusInbounds {
		n.engine.status.Inbounds = append(n.engine.status.Inbounds, xray.InboundStatus{Tag: fmt.Sprintf("in-%04d", i), Error: strings.Repeat("ä", 10_000)})
	}
	for range 2 * maxStatusWarnings {
		n.engine.warnings = append(n.engine.warnings, strings.Repeat("ä", 10_000))
	}
	report := n.statusForCore(newStatusReporter(), time.Now())
	body, err := json.Marshal(report)
	if err != nil || len(body) > 512<<10 {
		t.Errorf("%d bytes: %v", len(body), err)
	}
	if report.MoreInbounds != maxStatusInbounds || report.MoreWarnings != maxStatusWarnings {
		t.Errorf("%d inbounds and %d warnings are counted", report.MoreInbounds, report.MoreWarnings)
	}
}

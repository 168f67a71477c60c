package agent

import (
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/store"
)

// maxReportedDamage bounds how many damaged values one report names.
const maxReportedDamage = 50

// reportDamage tells Core and the log once of each value of the state file that was found damaged
// and set aside. All that were found since the last call are one report.
func (a *Agent) reportDamage() {
	found, err := a.store.Unreported()
	if err != nil {
		a.log.Error("read which values of the state file are damaged", logkey.Error, err)
		return
	}
	if len(found) == 0 {
		return
	}
	for _, d := range found {
		a.log.Error("a value of the state file is damaged; it is set aside, and the rest goes on", logkey.ID, d.ID, logkey.Bucket, d.Bucket, logkey.Error, d.Reason)
	}
	message := fmt.Sprintf("%d damaged values of the state file are set aside, and the rest goes on; the first: %s: %s", len(found), found[0].Meaning(), found[0].Reason)
	details := map[string]any{"damaged": found[:min(len(found), maxReportedDamage)], "count": len(found)}
	body := wire.ErrorRequest{Message: message, Code: wire.CodeStoreFailed, Details: details}
	if err := a.store.ReportDamage(time.Now(), found, wire.PathError, body); err != nil {
		a.log.Error("report damaged values of the state file; trying again", logkey.Error, err)
		return
	}
	a.reporter.Queued(wire.CodeStoreFailed, message, details)
}

// damageProblem says in one line that damaged values are kept; empty where there are none.
func damageProblem(w store.Waiting) string {
	if w.Damaged == 0 {
		return ""
	}
	return fmt.Sprintf("%d damaged values of the state file are set aside; see 'node-agent outbox list' for what is lost, check the disk, and delete them with 'node-agent outbox drop'", w.Damaged)
}

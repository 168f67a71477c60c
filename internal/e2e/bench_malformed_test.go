package e2e

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"nodeagent/coreclient/wire"
)

// BenchmarkMalformedClient reports how long a revision with 100,000 clients takes, from the
// fetch until the last client is served, where one of them is malformed: as a ratio to the same
// revision without it (the bound is 1.1). Parsing finds the first kind of client, the checks the
// second, and only xray-core the third, in a dry run that is then made again. It reports the
// processor time of daemon, worker and dry runs in the same way.
func BenchmarkMalformedClient(b *testing.B) {
	uuids := benchUUIDs(manyClients)
	target := echoByte(b)
	times, processor := map[string][]float64{}, map[string][]float64{}
	spoilt := map[string]map[string]any{
		"clean":   {"id": uuids[manyClients/2], "email": "odd"},
		"no-uuid": {"id": "no", "email": "odd"},
		"flow":    {"id": uuids[manyClients/2], "email": "odd", "flow": "xtls-rprx-visoin"},
		"level":   {"id": uuids[manyClients/2], "email": "odd", "level": "x"},
	}
	for b.Loop() {
		seconds, ticks := map[string]float64{}, map[string]float64{}
		for _, name := range []string{"clean", "no-uuid", "flow", "level"} {
			r := newBenchPair(b, kindVLESS("", streams{}))
			r.core = newScriptedCore(b)
			r.serve(b, uuids[:1]) // before the agent asks, which is every ten seconds
			r.startAgent(b)
			benchCheck(b, r.core.applied(b.Context()))
			pids := []int{r.agent.PID(), r.worker(b).PID}
			before := processorTicksOfAll(b, pids)
			accounts := r.accounts(uuids)
			accounts[manyClients/2] = spoilt[name]
			r.serveAccounts(b, uuids, accounts)
			seconds[name] = r.firstOpen(b, uuids[manyClients-1], target).Seconds()
			ticks[name] = processorTicksOfAll(b, pids) - before
			benchCheck(b, r.agent.Stop())
		}
		for _, name := range []string{"no-uuid", "flow", "level"} {
			times[name] = append(times[name], seconds[name]/seconds["clean"])
			processor[name] = append(processor[name], ticks[name]/ticks["clean"])
		}
		times["clean"] = append(times["clean"], seconds["clean"])
		processor["clean"] = append(processor["clean"], ticks["clean"]/ticksPerSecond)
	}
	b.ReportMetric(median(times["clean"]), "s-clean")
	b.ReportMetric(median(processor["clean"]), "cpu-s-clean")
	for _, name := range []string{"no-uuid", "flow", "level"} {
		b.ReportMetric(median(times[name]), name+"-of-clean-time")
		b.ReportMetric(median(processor[name]), name+"-of-clean-cpu")
	}
}

// serveAccounts is serve with the clients' objects of the inbound.
func (r *benchPair) serveAccounts(b *testing.B, uuids []string, accounts []any) {
	b.Helper()
	refs := make(map[string]wire.ClientRef, len(uuids)+1)
	for i, uuid := range uuids {
		refs[uuid] = wire.ClientRef{UserID: int64(i + 1)}
	}
	refs["odd"] = wire.ClientRef{UserID: int64(len(uuids) + 1)}
	in := with(withClients(r.kind.config(r.ourPort), accounts), "tag", "in-1")
	benchCheck(b, r.core.publish(refs, map[string]any{"inbounds": []any{in}}))
}

// ticksPerSecond is USER_HZ of Linux, in which /proc counts processor time.
const ticksPerSecond = 100

// processorTicksOfAll returns the processor time of processes and of their children that have
// ended, in clock ticks.
func processorTicksOfAll(b *testing.B, pids []int) (sum float64) {
	b.Helper()
	for _, pid := range pids {
		sum += processorTicks(b, pid)
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		benchCheck(b, err)
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after)
		user, err1 := strconv.ParseFloat(fields[13], 64)
		system, err2 := strconv.ParseFloat(fields[14], 64)
		benchCheck(b, errors.Join(err1, err2))
		sum += user + system
	}
	return sum
}

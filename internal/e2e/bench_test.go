package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// benchBytes is how many bytes one measured download has.
const benchBytes = 512 << 20

// stockServer starts a stock Xray with the inbound that the agent serves and its statistics
// on.
func stockServer(b *testing.B, p Programs, dir string, port int, uuid string) {
	b.Helper()
	config := fmt.Sprintf(`{"log":{"loglevel":"warning"},"stats":{},"policy":{"levels":{"0":{"statsUserUplink":true,"statsUserDownlink":true}}},
		"inbounds":[{"tag":"in","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q,"email":"a"}]}}],
		"outbounds":[`+freedomToLoopback+`]}`, port, uuid)
	file := filepath.Join(dir, "stock.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	server, err := start(filepath.Join(dir, "stock.log"), p.Xray, "run", "-c", file)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Kill)
	if err := Eventually(b.Context(), func() error {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = conn.Close()
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
}

// benchWorld is a Core and an agent with one VLESS inbound and one subscriber. Their programs
// are built for it with the build tags.
func benchWorld(b *testing.B, tags string) (Programs, *Core, *Agent, Subscription, string) {
	b.Helper()
	dir := b.TempDir()
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	p, err := Build(b.Context(), dir, tags)
	check(err)
	core, err := NewCore(b.Context(), p, filepath.Join(dir, "core"))
	check(err)
	b.Cleanup(core.Kill)
	token, err := core.AddNode(b.Context(), "node")
	check(err)
	_, err = core.AddVLESS(b.Context(), "node")
	check(err)
	sub, err := core.AddSubscriber(b.Context(), "alice")
	check(err)
	agent, err := NewAgent(b.Context(), p, filepath.Join(dir, "agent"), "", token)
	check(err)
	check(agent.Start(b.Context()))
	b.Cleanup(func() { agent.Kill() })
	check(core.Synced(b.Context(), "node"))
	return p, core, agent, sub, dir
}

// pairs downloads through two clients in turns and returns the median of the pairs' ratios,
// the speed of the first to the speed of the second. The speed of the machine changes slowly,
// so only downloads that follow each other are compared.
func pairs(b *testing.B, target *Target, first, second *Client) float64 {
	b.Helper()
	download := func(c *Client) float64 {
		began := time.Now()
		if err := c.Exchange(target.Addr(), 0, benchBytes); err != nil {
			b.Fatal(err)
		}
		return time.Since(began).Seconds()
	}
	download(first)
	download(second)
	var ratios []float64
	for b.Loop() {
		took := download(first)
		ratios = append(ratios, download(second)/took)
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

func benchClient(b *testing.B, p Programs, prefix, link string) *Client {
	b.Helper()
	outbound, err := VLESS(link)
	if err != nil {
		b.Fatal(err)
	}
	client, err := NewClient(b.Context(), p, prefix, outbound)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Kill)
	return client
}

func benchTarget(b *testing.B) *Target {
	b.Helper()
	target, err := NewTarget()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = target.Close() })
	return target
}

// BenchmarkDownload reports the speed of a download through the worker, as a ratio to a stock
// Xray with its statistics on. The bound is 0.95.
func BenchmarkDownload(b *testing.B) {
	p, _, _, sub, dir := benchWorld(b, "")
	port, err := FreePort()
	if err != nil {
		b.Fatal(err)
	}
	stockServer(b, p, dir, port, sub.UUID)
	ours := benchClient(b, p, filepath.Join(dir, "ours"), sub.Links[0])
	stock := benchClient(b, p, filepath.Join(dir, "reference"),
		fmt.Sprintf("vless://%s@127.0.0.1:%d?type=tcp&security=none&encryption=none", sub.UUID, port))
	b.ReportMetric(pairs(b, benchTarget(b), ours, stock), "of-stock-speed")
}

// BenchmarkCounting reports the speed of a download, as a ratio to the same worker with
// counting compiled out. The bound is 0.99.
func BenchmarkCounting(b *testing.B) {
	p, _, _, sub, dir := benchWorld(b, "")
	_, _, _, bareSub, bareDir := benchWorld(b, "nocount")
	counting := benchClient(b, p, filepath.Join(dir, "counting"), sub.Links[0])
	bare := benchClient(b, p, filepath.Join(bareDir, "bare"), bareSub.Links[0])
	b.ReportMetric(pairs(b, benchTarget(b), counting, bare), "of-uncounted-speed")
}

// BenchmarkDaemonStart reports how long a daemon takes from its start until it serves its last
// good configuration and answers, and its memory at rest. The bounds are 300 ms and 30 MB. It
// also reports how long the same program takes to start and do nothing, which is most of the
// time.
func BenchmarkDaemonStart(b *testing.B) {
	p, _, agent, _, _ := benchWorld(b, "")
	var ready, bare []float64
	for b.Loop() {
		if err := agent.Stop(); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if _, _, err := output(b.Context(), p.Agent, "version"); err != nil {
			b.Fatal(err)
		}
		bare = append(bare, time.Since(began).Seconds()*1000)
		began = time.Now()
		if err := agent.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := Eventually(b.Context(), func() error {
			s, err := agent.Status(b.Context())
			if err == nil && s.Engines.Xray.State != "running" {
				err = fmt.Errorf("xray is %s", s.Engines.Xray.State)
			}
			return err
		}); err != nil {
			b.Fatal(err)
		}
		ready = append(ready, time.Since(began).Seconds()*1000)
	}
	slices.Sort(ready)
	slices.Sort(bare)
	b.ReportMetric(ready[len(ready)/2], "ms-ready")
	b.ReportMetric(bare[len(bare)/2], "ms-bare-start")
	time.Sleep(3 * time.Second) // the memory at rest is measured
	anonymous, err := memory(agent.PID(), "RssAnon")
	if err != nil {
		b.Fatal(err)
	}
	all, err := memory(agent.PID(), "VmRSS")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(anonymous, "MB-anonymous")
	b.ReportMetric(all, "MB-RSS")
}

// memory reads a line of /proc/PID/status, in megabytes.
func memory(pid int, name string) (float64, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) >= 2 && words[0] == name+":" {
			kilobytes, err := strconv.ParseFloat(words[1], 64)
			return kilobytes / 1000, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, name)
}

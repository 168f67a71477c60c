//go:build !race

package xray_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nodeagent/xray/xraytest"
)

// limitedGroup makes a control group whose processes together may take limit bytes of memory from now
// on, and returns its folder. The group is removed at the end, when its processes have ended.
func limitedGroup(t *testing.T, limit int) string {
	t.Helper()
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Skipf("NOT RUN: this kernel has no control groups (mount /sys/fs/cgroup): %v", err)
	}
	for line := range strings.Lines(string(groups)) { // cgroups(7): number, controllers, path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		folder, file := "", ""
		switch {
		case len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), "memory"):
			folder, file = filepath.Join("/sys/fs/cgroup/memory", parts[2]), "memory.limit_in_bytes"
		case len(parts) == 3 && parts[0] == "0" && parts[1] == "":
			folder, file = filepath.Join("/sys/fs/cgroup", parts[2]), "memory.max"
		default:
			continue
		}
		group := filepath.Join(folder, fmt.Sprintf("node-agent-test-%d", os.Getpid()))
		if os.Mkdir(group, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			for deadline := time.Now().Add(patience); os.Remove(group) != nil && time.Now().Before(deadline); {
				time.Sleep(10 * time.Millisecond) // the kernel takes a moment for a process that has ended
			}
		})
		// The second one keeps the kernel from swapping, where it can.
		if os.WriteFile(filepath.Join(group, file), fmt.Append(nil, limit), 0o644) == nil {
			_ = os.WriteFile(filepath.Join(group, "memory.swappiness"), []byte("0"), 0o644)
			_ = os.WriteFile(filepath.Join(group, "memory.swap.max"), []byte("0"), 0o644)
			return group
		}
	}
	t.Skip("NOT RUN: no control group with a limit of memory can be made here; it needs root, and the memory controller for children of this process's group")
	return ""
}

// Strangers who flood a worker whose memory is limited, as a small host or a unit with MemoryMax= limits
// it, do not end it: packets that begin QUIC connections, garbage, and a crowd that stays silent. Its
// clients are served meanwhile, and new ones are let in.
func TestFloodsInLimitedMemory(t *testing.T) {
	const (
		limit   = 96 << 20 // on top of what the worker has at rest
		packets = 10_000
		crowd   = 800
	)
	group := limitedGroup(t, limit)
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	secure := fmt.Sprintf(`"security":"tls","tlsSettings":{"certificates":[{"certificate":[%q],"key":[%q]}]}`, certificate, key)
	r := newRig(t)
	quicPort, tlsPort := freePort(t), freePort(t)
	client := fmt.Sprintf(`"decryption":"none","clients":[{"id":%q}]`, aliceID)
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[
		{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{%s}},
		{"tag":"in-2","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{%s},"streamSettings":{%s}},
		{"tag":"in-3","listen":"127.0.0.1","port":%d,"protocol":"hysteria","settings":{"version":2,"clients":[{"auth":"a","email":"a"}]},"streamSettings":{"network":"hysteria","hysteriaSettings":{"version":2},%s}}]}`,
		r.port, client, tlsPort, client, secure, quicPort, secure)), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	r.apply(s)
	there, pid := r.dial(aliceID), r.engine.Status().PID
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Append(nil, pid), 0o644); err != nil {
		t.Fatal(err)
	}
	var silent []net.Conn
	defer func() {
		for _, conn := range silent {
			_ = conn.Close()
		}
	}()
	floodBeside(t, there, quicPort, packets, initial, func() {
		var scanning sync.WaitGroup
		for range 50 {
			scanning.Go(func() { scan(r.port, 500, nil) })
			scanning.Go(func() { scan(tlsPort, 500, nil) })
			scanning.Go(func() { scan(tlsPort, 500, &tls.Config{InsecureSkipVerify: true}) })
		}
		for range crowd / 4 {
			if len(silent) == crowd {
				break
			}
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tlsPort))
			if err != nil {
				t.Fatal(err)
			}
			silent = append(silent, conn)
		}
		scanning.Wait()
	})
	if err := use(there); err != nil {
		t.Errorf("the client that is there: %v", err)
	}
	if _, err := r.tryDial(aliceID); err != nil {
		t.Errorf("a new client: %v", err)
	}
	status := r.engine.Status()
	if status.PID != pid || status.Restarts != 0 {
		t.Errorf("the worker %d was ended: %s", pid, status.LastRestart)
	}
	for _, file := range []string{"memory.max_usage_in_bytes", "memory.peak"} {
		if most, err := os.ReadFile(filepath.Join(group, file)); err == nil {
			t.Logf("%s: %s, of %d", file, strings.TrimSpace(string(most)), limit)
		}
	}
}

package namespace

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// HostIP is the test's own address towards a Phone.
const HostIP = "10.77.0.1"

// Phone is a host of its own at the other end of a link: a network namespace that this test
// process uses for some sockets. It can leave without a FIN.
type Phone struct {
	t     *testing.T
	path  string // of its network namespace
	calls chan func()
}

// NewPhone makes a phone with the addresses, such as 10.77.0.2/24. It is called once in a test
// that runs Inside, and removed with the namespace of the test.
func NewPhone(t *testing.T, addresses ...string) *Phone {
	t.Helper()
	p := &Phone{t: t, calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // without an unlock: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		p.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ready <- err
		for call := range p.calls {
			call()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { close(p.calls) })
	p.run("", "ip link add host type veth peer name phone netns "+p.path)
	p.run("", "ip address add "+HostIP+"/24 dev host && ip -6 address add fd77::1/48 dev host nodad && ip link set host up")
	// An address that goes takes no other one along.
	p.run(p.path, "echo 1 >/proc/sys/net/ipv4/conf/all/promote_secondaries && ip link set lo up && ip link set phone up")
	for _, address := range addresses {
		p.Join(address)
	}
	return p
}

// Join gives the phone another address.
func (p *Phone) Join(address string) {
	p.t.Helper()
	nodad := ""
	if strings.Contains(address, ":") {
		nodad = " nodad"
	}
	p.run(p.path, "ip address add "+address+" dev phone"+nodad)
}

// Leave takes an address away. What was connected from it gets no answer any more, and the
// phone sends nothing from it.
func (p *Phone) Leave(address string) {
	p.t.Helper()
	p.run(p.path, "ip address del "+address+" dev phone")
}

// Dial connects from one of the phone's addresses, without a prefix.
func (p *Phone) Dial(from, to string) (net.Conn, error) {
	dialer := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 20 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1,
	}
	var conn net.Conn
	var err error
	done := make(chan struct{})
	p.calls <- func() {
		defer close(done)
		conn, err = dialer.Dial("tcp", to)
	}
	<-done
	return conn, err
}

// Datagrams opens a UDP socket at one of the phone's addresses. The caller closes it.
func (p *Phone) Datagrams(from string) (*net.UDPConn, error) {
	var conn *net.UDPConn
	var err error
	done := make(chan struct{})
	p.calls <- func() {
		defer close(done)
		conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)})
	}
	<-done
	return conn, err
}

// Command returns a program's command line that runs it as one of the phone's.
func (p *Phone) Command(program string, args ...string) (name string, all []string) {
	return "nsenter", append([]string{"--net=" + p.path, program}, args...)
}

// RouteAll makes every address lead to the test's own namespace.
func (p *Phone) RouteAll() {
	p.t.Helper()
	p.run(p.path, "ip route add default via "+HostIP)
}

// Relay listens on loopback of the test's own namespace, and connects who comes there with to,
// from the phone's address: for clients that can't be told where to make their sockets.
func (p *Phone) Relay(from, to string) (address string) {
	p.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := p.Dial(from, to)
			if err != nil {
				_ = near.Close()
				continue
			}
			go copyThenClose(near, far)
			go copyThenClose(far, near)
		}
	}()
	return listener.Addr().String()
}

func copyThenClose(to, from net.Conn) {
	_, _ = to.(*net.TCPConn).ReadFrom(from)
	_ = to.Close()
}

// run runs shell commands in a network namespace, empty for the test's own.
func (p *Phone) run(namespace, commands string) {
	p.t.Helper()
	shell := exec.Command("sh", "-ec", commands)
	if namespace != "" {
		shell = exec.Command("nsenter", "--net="+namespace, "sh", "-ec", commands)
	}
	shell.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := shell.CombinedOutput(); err != nil {
		p.t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// FreePort gives ports below those that the kernel chooses by itself (ip_local_port_range),
// where another program could take a port before it is used.
const (
	firstPort = 12_000
	lastPort  = 32_000
	portTries = 100
)

// ports are the ports that FreePort can give, in an order that differs from process to
// process, and how many it has given. No port is given twice while there are others: its
// first owner may not listen on it yet.
var ports = struct {
	sync.Mutex

	order []int
	taken int
}{order: rand.Perm(lastPort - firstPort)}

// FreePort returns a port of 127.0.0.1 on which nothing listens over TCP or UDP. It has not
// returned that port in this process before.
func FreePort() (int, error) {
	ports.Lock()
	defer ports.Unlock()
	var err error
	for range portTries {
		port := firstPort + ports.order[ports.taken%len(ports.order)]
		ports.taken++
		if err = canListen(port); err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

func canListen(port int) error {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	stream, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer stream.Close()
	datagrams, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	return datagrams.Close()
}

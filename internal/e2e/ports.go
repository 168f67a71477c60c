package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The ports that FreePort gives lie below those that the kernel gives out by itself
// (ip_local_port_range), where another program could have one before it is used.
const (
	firstPort = 12_000
	lastPort  = 32_000
	portTries = 100
)

// ports are those that FreePort can give, in an order that differs from process to
// process, and how many it took. No port comes a second time while another is left:
// who asked first may not listen on his yet.
var ports = struct {
	sync.Mutex

	order []int
	taken int
}{order: rand.Perm(lastPort - firstPort)}

// FreePort returns a port of 127.0.0.1 that nobody listens on, by TCP or UDP, and that
// this process was not given before.
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

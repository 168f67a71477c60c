package process

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"nodeagent/telemt/service"
)

func TestPorts(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := listener.Addr().(*net.TCPAddr).AddrPort()
	anywhere := netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
	for _, address := range []netip.AddrPort{at, anywhere} {
		err := CheckPort("mtproto-7", address)
		failure, ok := errors.AsType[*service.ApplyError](err)
		if !ok || failure.Code != service.FailurePortInUse || failure.Tag != "mtproto-7" || failure.Port != at.Port() {
			t.Errorf("%s: got %v, want that the port is in use", address, err)
		}
		if !isListening(address) {
			t.Errorf("%s: nothing listens there", address)
		}
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := CheckPort("mtproto-7", at); err != nil {
		t.Errorf("the port is free, and got %v", err)
	}
	if isListening(at) {
		t.Error("something listens on the free port")
	}
}

package relay

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"reflect"
	"testing"
)

// Frames arrive as they were sent, one after the other.
func TestFrames(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:443")
	all := []datagram{
		{at: at, from: &net.UDPAddr{IP: net.IPv4(198, 51, 100, 7).To4(), Port: 5000}, control: []byte{1, 2, 3}, data: []byte("first")},
		{at: netip.MustParseAddrPort("[2001:db8::1]:8443"), from: &net.UDPAddr{IP: net.ParseIP("fe80::1"), Port: 1, Zone: "7"}, control: []byte{}, data: bytes.Repeat([]byte{9}, mostDatagram)},
		{at: at, from: &net.UDPAddr{IP: net.ParseIP("2001:db8::2"), Port: 65535}, control: make([]byte, mostControl), data: []byte{}},
	}
	var sent []byte
	for _, d := range all {
		var fits bool
		if sent, fits = appendFrame(sent, d); !fits {
			t.Fatalf("%+v does not fit", d)
		}
	}
	in, buffer := bufio.NewReader(bytes.NewReader(sent)), make([]byte, mostFrame)
	for _, want := range all {
		got, err := readFrame(in, buffer)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v (%v), want %+v", got, err, want)
		}
	}
	for _, long := range []datagram{{at: at, from: all[0].from, control: make([]byte, mostControl), data: make([]byte, mostDatagram+1)}, {at: at, from: all[0].from, data: make([]byte, mostFrame-frameFixed+1)}, {at: at, from: all[0].from, control: make([]byte, mostControl+1)}, {at: at, from: &net.UDPAddr{}}} {
		if _, fits := appendFrame(nil, long); fits {
			t.Errorf("a datagram of %d bytes with %d of control messages, from %v, fits", len(long.data), len(long.control), long.from)
		}
	}
}

// No bytes make the reader panic or return more than a frame has.
func FuzzFrame(f *testing.F) {
	frame, _ := appendFrame(nil, datagram{at: netip.MustParseAddrPort("192.0.2.1:443"), from: &net.UDPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 5000, Zone: "3"}, control: []byte{1}, data: []byte("data")})
	f.Add(frame)
	f.Add([]byte{0, 42})
	f.Add(append([]byte{0, 44}, bytes.Repeat([]byte{255}, 44)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, buffer := bufio.NewReader(bytes.NewReader(data)), make([]byte, mostFrame)
		for {
			d, err := readFrame(in, buffer)
			if err != nil {
				return
			}
			if len(d.control)+len(d.data)+frameFixed > len(data) {
				t.Fatalf("%d and %d bytes out of %d", len(d.control), len(d.data), len(data))
			}
		}
	})
}

// A datagram's connection id names the worker that made it, in packets with short and with long
// headers. Ids that clients or other nodes make name none.
func TestLaneOf(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	made, err := newIDs(key, 11)
	if err != nil {
		t.Fatal(err)
	}
	reading, _ := newIDs(key, 2)
	other, _ := newIDs(bytes.Repeat([]byte{8}, 32), 11)
	seen := map[string]bool{}
	for range 1000 {
		id, err := made.GenerateConnectionID()
		if err != nil || id.Len() != made.ConnectionIDLen() || seen[id.String()] {
			t.Fatalf("id %s: %v", id, err)
		}
		seen[id.String()] = true
		short := append(append([]byte{0x40}, id.Bytes()...), 1, 2, 3)
		long := append(append([]byte{0xc0, 0, 0, 0, 1, idLength}, id.Bytes()...), 0)
		for _, datagram := range [][]byte{short, long} {
			if lane, is := reading.laneOf(datagram); !is || lane != 11 {
				t.Fatalf("%x is of lane %d %v", datagram, lane, is)
			}
			if lane, is := other.laneOf(datagram); is {
				t.Fatalf("another node reads lane %d in %x", lane, datagram)
			}
		}
	}
	for _, datagram := range [][]byte{nil, {0x40}, {0xc0}, {0xc0, 0, 0, 0, 1, 16}, append([]byte{0xc0, 0, 0, 0, 1, 8}, make([]byte, 30)...), make([]byte, 100)} {
		if lane, is := reading.laneOf(datagram); is {
			t.Errorf("%x is of lane %d", datagram, lane)
		}
	}
}

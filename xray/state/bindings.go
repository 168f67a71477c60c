package state

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nodeagent/internal/fault"
)

// Binding is an address, port and network on which an inbound listens, or a unix socket.
type Binding struct {
	Tag     string
	Network string // tcp, udp or unix
	Address netip.Addr
	Port    uint16 // 0 for a unix socket
	Path    string `json:",omitzero"` // of a unix socket; "@name" for an abstract one
}

func (b Binding) String() string {
	if b.Network == NetworkUnix {
		return "unix:" + b.Path
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(b.Address, b.Port), b.Network)
}

// Overlaps reports whether one program cannot listen on both without sharing a port. An
// unspecified address overlaps with every address, of IPv4 and of IPv6.
func (b Binding) Overlaps(o Binding) bool {
	return b.Network == o.Network && b.Port == o.Port && b.Path == o.Path &&
		(b.Address == o.Address || b.Address.IsUnspecified() || o.Address.IsUnspecified())
}

// CheckPorts returns a fault for each inbound of s that listens on a port or unix socket of
// another inbound, and for each whose bindings cannot be read. It accepts what from has too:
// two inbounds that collide already refuse no change that is about something else. Of two
// inbounds that collide, the one that from has with the same Config has the port, or else the
// first in the order of the tags. CheckPorts looks at unix sockets and at the UDP ports of SOCKS
// only with isNew: nodes may run states that are older than these two checks.
func CheckPorts(from, s State, isNew bool) error {
	taken := map[uint16][]Binding{}
	var all []error
	tags := s.Tags()
	slices.SortStableFunc(tags, func(a, b string) int { return cmp.Compare(changes(from, s, a), changes(from, s, b)) })
	for _, tag := range tags {
		bindings, err := s.Inbounds[tag].Bindings()
		if err == nil && !isNew && Protocols[s.Inbounds[tag].Protocol].Listens == OnTCPAndUDP {
			bindings = slices.DeleteFunc(bindings, func(b Binding) bool { return b.Network == "udp" })
		}
		if err == nil {
			err = collision(from, bindings, taken, isNew)
		} else if _, before := from.Inbounds[tag].Bindings(); before != nil && before.Error() == err.Error() {
			err = nil
		}
		if err != nil {
			all = append(all, err)
			continue // it is refused, and takes no port
		}
		for _, b := range bindings {
			taken[b.Port] = append(taken[b.Port], b)
		}
	}
	return errors.Join(all...)
}

// collision returns a fault where one of the bindings of an inbound overlaps with one of taken,
// by port, and did not in from.
func collision(from State, bindings []Binding, taken map[uint16][]Binding, isNew bool) error {
	for _, b := range bindings {
		i := slices.IndexFunc(taken[b.Port], b.Overlaps)
		if i < 0 || b.Network == NetworkUnix && !isNew {
			continue
		}
		other := taken[b.Port][i]
		switch {
		case listensOn(from, b) && listensOn(from, other):
		case b.Network == NetworkUnix:
			return fault.InText(b.Tag, "inbounds %q and %q both listen on the unix socket %s: give one of them another path", other.Tag, b.Tag, b.Path)
		default:
			return fault.InText(b.Tag, "inbounds %q and %q both listen on port %d (%s), so connections would be split between them: give one of them another port", other.Tag, b.Tag, b.Port, b)
		}
	}
	return nil
}

// listensOn reports whether the inbound b.Tag of s has the binding.
func listensOn(s State, b Binding) bool {
	bindings, err := s.Inbounds[b.Tag].Bindings()
	return err == nil && slices.Contains(bindings, b)
}

// changes returns 0 for an inbound that from has with the same Config, and 1 for the others.
func changes(from, to State, tag string) int {
	if running, runs := from.Inbounds[tag]; runs && slices.Equal(running.Config, to.Inbounds[tag].Config) {
		return 0
	}
	return 1
}

// Bindings returns where the inbound listens: a binding for each pair of a port and a network,
// one for a unix socket, and none for an inbound that listens on nothing (tun). It returns a
// fault where the members cannot be read.
func (in Inbound) Bindings() ([]Binding, error) {
	where, err := in.View().listening, in.View().listeningErr
	if err != nil {
		return nil, fault.InText(in.Tag, "read inbound %q: %v", in.Tag, err)
	}
	protocol := Protocols[in.Protocol]
	if protocol.Listens == OnNothing {
		return nil, nil
	}
	if path, _ := UnixPath(where.Listen); path != "" {
		if !protocol.UnixSocket {
			return nil, nil // Xray accepts the path and listens on nothing
		}
		return []Binding{{Tag: in.Tag, Network: NetworkUnix, Path: path}}, nil
	}
	address := netip.IPv4Unspecified()
	if where.Listen == "localhost" {
		address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	} else if where.Listen != "" {
		var err error
		if address, err = netip.ParseAddr(strings.Trim(where.Listen, "[]")); err != nil {
			return nil, fault.InText(in.Tag, "inbound %q listens on %q, which is not an IP address: give an address of this host, or leave listen out for all of them", in.Tag, where.Listen)
		}
	}
	ports, err := parsePorts(where.Port)
	if err != nil {
		return nil, fault.InText(in.Tag, "inbound %q: %v", in.Tag, err)
	}
	var bindings []Binding
	for _, port := range ports {
		for _, network := range in.Networks() {
			bindings = append(bindings, Binding{Tag: in.Tag, Network: network, Address: address.Unmap(), Port: port})
		}
	}
	return bindings, nil
}

// BindingsOf returns the bindings of all inbounds of the state. It leaves out an inbound
// whose bindings cannot be read.
func BindingsOf(s State) []Binding {
	var all []Binding
	for _, tag := range s.Tags() {
		if bindings, err := s.Inbounds[tag].Bindings(); err == nil {
			all = append(all, bindings...)
		}
	}
	return all
}

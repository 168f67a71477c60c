package proxymask

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/xtls/xray-core/common"
	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet/finalmask"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Mask looks at each connection that an inbound accepts, before anything else does.
// With proxies it lets those in alone. With forgets it takes off the header of the PROXY
// protocol, and the connection keeps its own address.
//
// To xray-core it is a mask, the one way to the connections of every transport. Masks are
// protobuf messages, which it makes by their names in protobuf's registry.
type Mask struct {
	*dynamicpb.Message
}

var _ finalmask.Tcpmask = Mask{}

// headerWait bounds the wait for a PROXY header, as xray-core does.
const headerWait = 10 * time.Second

// New makes a mask that lets proxies alone connect, nil for everybody. With forgets it reads
// the header of the PROXY protocol and does not use the address in it.
func New(proxies []netip.Prefix, forgets bool) *Mask {
	mask := &Mask{dynamicpb.NewMessage(proxyMaskType.Descriptor())}
	list := mask.Mutable(proxiesField).List()
	for _, network := range proxies {
		list.Append(protoreflect.ValueOfString(network.String()))
	}
	mask.Set(forgetsField, protoreflect.ValueOfBool(forgets))
	return mask
}

// TCP is a part of being a mask.
func (Mask) TCP() {}

// WrapConnClient is a part of being a mask, for outbounds.
func (Mask) WrapConnClient(conn net.Conn) (net.Conn, error) { return conn, nil }

// WrapConnServer closes the connection of a peer that is none of the proxies, and returns it
// without an error: xray-core hands an error to the server that accepts, and an HTTP server
// ends with it (transport/internet/finalmask/finalmask.go:258).
func (m Mask) WrapConnServer(conn net.Conn) (net.Conn, error) {
	peer := conn
	if announced, ok := conn.(*proxyproto.Conn); ok { // xray-core reads the header
		announced.Validate = hasAddress
		peer = announced.Raw()
	}
	if err := m.letIn(peer); err != nil {
		xerrors.LogDebug(context.Background(), err.Error())
		_ = conn.Close()
		return conn, nil
	}
	if m.Get(forgetsField).Bool() {
		return proxyproto.NewConn(conn, proxyproto.WithPolicy(proxyproto.IGNORE), proxyproto.SetReadHeaderTimeout(headerWait)), nil
	}
	return conn, nil
}

func (m Mask) letIn(conn net.Conn) error {
	proxies := m.Get(proxiesField).List()
	if proxies.Len() == 0 {
		return nil
	}
	var peer netip.Addr
	if address, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		peer = address.AddrPort().Addr().Unmap().WithZone("")
	}
	for i := range proxies.Len() {
		if network, err := netip.ParsePrefix(proxies.Get(i).String()); err == nil && network.Contains(peer) {
			return nil
		}
	}
	return fmt.Errorf("%s is none of trustedProxies: its connection is closed", peer)
}

// hasAddress refuses a PROXY header that names no TCP address: xray-core would panic for
// the connection, outside of everything that could catch it (common/net/destination.go).
func hasAddress(header *proxyproto.Header) error {
	if _, _, ok := header.TCPAddrs(); !ok && !header.Command.IsLocal() {
		return fmt.Errorf("the PROXY header names no TCP address (transport %#x)", byte(header.TransportProtocol))
	}
	return nil
}

// Interface makes the registry's messages masks.
func (m Mask) Interface() proto.Message { return m }

// maskType makes masks.
type maskType struct {
	protoreflect.MessageType
}

func (t maskType) New() protoreflect.Message {
	return Mask{dynamicpb.NewMessage(t.Descriptor())}
}

var (
	proxyMaskType = maskType{dynamicpb.NewMessageType(describeProxyMask())}
	proxiesField  = proxyMaskType.Descriptor().Fields().ByNumber(1)
	forgetsField  = proxyMaskType.Descriptor().Fields().ByNumber(2)
)

// describeProxyMask has the list of networks, and whether it forgets the header.
func describeProxyMask() protoreflect.MessageDescriptor {
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("nodeagent/proxymask.proto"), Package: new("nodeagent"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: new("ProxyMask"),
			Field: []*descriptorpb.FieldDescriptorProto{
				{Name: new("proxies"), Number: new(int32(1)), Label: descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()},
				{Name: new("forgets"), Number: new(int32(2)), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_BOOL.Enum()},
			},
		}},
	}, nil)
	common.Must(err)
	return file.Messages().Get(0)
}

// Register teaches protobuf the mask, whose message has no generated code. It is called once.
func Register() error { return protoregistry.GlobalTypes.RegisterMessage(proxyMaskType) }

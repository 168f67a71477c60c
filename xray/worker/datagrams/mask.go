package datagrams

import (
	"net"
	"time"

	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/transport/internet/finalmask"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"nodeagent/xray/worker/relay"
)

// Mask makes an inbound's UDP socket keep what does not fit. To xray-core it is a mask, the one
// way to that socket (transport/internet/udp/hub.go:72). Masks are protobuf messages, which it
// makes by their names in protobuf's registry.
type Mask struct{ *dynamicpb.Message }

var _ finalmask.Udpmask = Mask{}

// NewMask makes a mask.
func NewMask() Mask { return Mask{dynamicpb.NewMessage(ourMask.Descriptor())} }

// UDP is a part of being a mask.
func (Mask) UDP() {}

// WrapPacketConnClient is a part of being a mask, for outbounds.
func (Mask) WrapPacketConnClient(raw net.PacketConn, _, _ int) (net.PacketConn, error) {
	return raw, nil
}

// WrapPacketConnServer returns the socket that keeps what does not fit, and whose sources stay with their
// worker when another one takes over.
func (Mask) WrapPacketConnServer(raw net.PacketConn, _, _ int) (net.PacketConn, error) {
	udp, is := raw.(*net.UDPConn)
	if !is {
		return raw, nil
	}
	socket, err := NewSocket(udp, keepRest)
	if err != nil {
		return nil, err
	}
	return relay.ListenSources(inboundSocket{socket}, sourceLife, false), nil
}

// keepRest keeps the rest of a datagram that was read into p.
func keepRest(p, rest []byte) bool {
	if len(p) < buf.Size && rest == nil {
		return true // of a reader whose buffers are not xray-core's
	}
	return waiting.keep(p, rest)
}

// inboundSocket is a socket whose rests the inbound asks for.
type inboundSocket struct{ *Socket }

var _ relay.Rester = inboundSocket{}

// TakeRest implements relay.Rester.
func (inboundSocket) TakeRest(buffer []byte) []byte { return waiting.take(buffer) }

// KeepRest implements relay.Rester.
func (inboundSocket) KeepRest(buffer, rest []byte) bool { return keepRest(buffer, rest) }

// sourceLife is how long a source stays with a worker that drains, after the last answer: as long as a
// SOCKS inbound knows whose the source is (two minutes until xray-core ends its reader, and three more).
const sourceLife = 5 * time.Minute

// Interface makes the registry's messages masks.
func (m Mask) Interface() proto.Message { return m }

// maskType makes masks.
type maskType struct{ protoreflect.MessageType }

func (t maskType) New() protoreflect.Message { return Mask{dynamicpb.NewMessage(t.Descriptor())} }

var ourMask = maskType{dynamicpb.NewMessageType(describeMask())}

// describeMask has no fields.
func describeMask() protoreflect.MessageDescriptor {
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("nodeagent/datagrams.proto"), Package: new("nodeagent"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("WholeDatagrams")}},
	}, nil)
	common.Must(err)
	return file.Messages().Get(0)
}

// Register teaches protobuf the mask, whose message has no generated code. It is called once.
func Register() error { return protoregistry.GlobalTypes.RegisterMessage(ourMask) }

package life

import (
	"github.com/pires/go-proxyproto"
	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet/finalmask"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Mask adds each connection that an inbound accepts to All, and leaves it as it is.
//
// To xray-core it is a mask, the one way to the connections of every transport (see package
// proxymask).
type Mask struct{ *dynamicpb.Message }

var _ finalmask.Tcpmask = Mask{}

// New makes a mask.
func New() Mask { return Mask{dynamicpb.NewMessage(descriptor)} }

// TCP is a part of being a mask.
func (Mask) TCP() {}

// WrapConnClient is a part of being a mask, for outbounds.
func (Mask) WrapConnClient(conn net.Conn) (net.Conn, error) { return conn, nil }

// WrapConnServer adds the connection to All.
func (Mask) WrapConnServer(conn net.Conn) (net.Conn, error) {
	raw := conn
	if announced, ok := conn.(*proxyproto.Conn); ok {
		raw = announced.Raw()
	}
	if socket, ok := raw.(*net.TCPConn); ok && enabled {
		All.Add(socket)
	}
	return conn, nil
}

// Interface makes the registry's messages masks.
func (m Mask) Interface() proto.Message { return m }

// maskType makes masks.
type maskType struct{ protoreflect.MessageType }

func (t maskType) New() protoreflect.Message { return New() }

var maskMessages = maskType{dynamicpb.NewMessageType(descriptor)}

var descriptor = describe()

func describe() protoreflect.MessageDescriptor {
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("nodeagent/lifemask.proto"), Package: new("nodeagent"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("LifeMask")}},
	}, nil)
	common.Must(err)
	return file.Messages().Get(0)
}

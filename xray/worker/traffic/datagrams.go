package traffic

import (
	"context"
	"net/netip"
	"slices"

	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/transport"
	"github.com/xtls/xray-core/transport/pipe"

	"nodeagent/xray/worker/inbound/shadowsocks"
)

// maxAddress is the longest address and port in the header of a datagram: a type, a length, a
// name of 255 bytes and a port.
const maxAddress = 1 + 1 + 255 + 2

// answerLimits are the longest datagrams, in bytes, that xray-core 26.7.28 can send to the
// clients of an inbound, by session.Inbound.Name. xray-core makes an answer in a buffer of
// buf.Size bytes. One that does not fit ends the process in Shadowsocks (EncodePacket in
// proxy/shadowsocks/config.go extends a full buffer, which panics on a goroutine of its own)
// and the client's stream in Trojan.
var answerLimits = map[string]int32{
	"shadowsocks": buf.Size - 32 - maxAddress - 16, // salt, address and tag
	"trojan":      buf.Size - maxAddress - 4,       // address, length and CRLF
	"vless":       buf.Size - 2,                    // length
	"vmess":       buf.Size,
}

// AskedBy returns a context for the streams of datagrams of SOCKS. control returns where the TCP connection
// comes from on which the client asked for them: it shows whether the client is there. Any goroutine calls
// control, without a lock of this package.
func AskedBy(ctx context.Context, control func() netip.AddrPort) context.Context {
	return context.WithValue(ctx, controlKey{}, control)
}

type controlKey struct{}

// fromDatagrams notes how it can be found out whether the client of a stream from a UDP port is there.
// inbound is session.Inbound.Name. The streams of QUIC and mKCP connections end with these.
func (s *stream) fromDatagrams(inbound string) {
	switch inbound {
	case "socks":
		s.control, _ = s.ctx.Value(controlKey{}).(func() netip.AddrPort)
	case "shadowsocks", shadowsocks.Name:
		s.datagrams = true
	}
}

// wholeDatagrams makes a stream of datagrams carry each of them whole or not at all.
func wholeDatagrams(in *session.Inbound, to net.Destination, link *transport.Link) {
	if to.Network != net.Network_UDP || in == nil {
		return
	}
	if limit, has := answerLimits[in.Name]; has {
		link.Writer = &fittingWriter{link.Writer, limit}
	}
	if up, is := link.Reader.(*uplink); is && !isPipe(up.Reader) {
		link.Reader = &joiningReader{link.Reader}
	}
}

// fittingWriter drops the answers that are longer than limit, as the network would.
type fittingWriter struct {
	buf.Writer
	limit int32
}

func (w *fittingWriter) WriteMultiBuffer(mb buf.MultiBuffer) error {
	mb = slices.DeleteFunc(mb, func(datagram *buf.Buffer) bool {
		if datagram.Len() <= w.limit {
			return false
		}
		datagram.Release()
		return true
	})
	if len(mb) == 0 {
		return nil
	}
	return w.Writer.WriteMultiBuffer(mb)
}

func (w *fittingWriter) Close() error { return common.Close(w.Writer) }
func (w *fittingWriter) Interrupt()   { common.Interrupt(w.Writer) }

// joiningReader joins what an inbound's reader has split. VLESS and Trojan return one datagram
// at a time, in buffers of buf.Size bytes (LengthPacketReader in proxy/vless/encoding/addons.go,
// PacketReader in proxy/trojan/protocol.go), and outbounds send each buffer as a datagram.
type joiningReader struct{ buf.Reader }

func (r *joiningReader) ReadMultiBuffer() (buf.MultiBuffer, error) {
	mb, err := r.Reader.ReadMultiBuffer()
	if len(mb) < 2 || mb[0].Len() < buf.Size {
		return mb, err
	}
	whole := make([]byte, 0, mb.Len())
	for _, part := range mb {
		whole = append(whole, part.Bytes()...)
	}
	datagram := buf.FromBytes(whole)
	datagram.UDP = mb[0].UDP
	buf.ReleaseMulti(mb)
	return buf.MultiBuffer{datagram}, err
}

func (r *joiningReader) Interrupt() { common.Interrupt(r.Reader) }

// isPipe reports whether reader may return several datagrams at a time.
func isPipe(reader buf.Reader) bool {
	_, is := reader.(*pipe.Reader)
	return is
}

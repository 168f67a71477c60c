package freedom

import (
	"context"
	gonet "net"
	"slices"

	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/transport"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/stat"

	"nodeagent/xray/worker/datagrams"
	"nodeagent/xray/worker/reach"
)

// WholeDatagrams makes one stream of datagrams receive them whole. It returns what
// proxy.Outbound.Process of the freedom outbound gets in the place of link and dialer. Any other
// stream is left as it is. choice, where it is not nil, keeps the client's datagrams from the node.
func WholeDatagrams(ctx context.Context, link *transport.Link, dialer internet.Dialer, choice *reach.Choice) (*transport.Link, internet.Dialer) {
	outbounds := session.OutboundsFromContext(ctx)
	if len(outbounds) == 0 || outbounds[len(outbounds)-1].Target.Network != net.Network_UDP {
		return link, dialer
	}
	rest := &rest{}
	return &transport.Link{Reader: link.Reader, Writer: &joiner{link.Writer, rest}}, &receivingDialer{dialer, rest, choice}
}

// rest is what did not fit of the datagram that was read last. The goroutine that reads the
// datagrams and writes them to the client owns it.
type rest struct{ bytes []byte }

type receivingDialer struct {
	internet.Dialer
	rest   *rest
	choice *reach.Choice
}

func (d *receivingDialer) Dial(ctx context.Context, to net.Destination) (stat.Connection, error) {
	conn, err := d.Dialer.Dial(ctx, to)
	if wrapper, is := stat.TryUnwrapStatsConn(conn).(*internet.PacketConnWrapper); is && err == nil {
		if udp, is := wrapper.PacketConn.(*gonet.UDPConn); is {
			if socket, err := datagrams.NewSocket(udp, func(_, rest []byte) bool { d.rest.bytes = rest; return true }); err == nil {
				wrapper.PacketConn = socket
			}
		}
		if d.choice != nil {
			wrapper.PacketConn = d.choice.Socket(wrapper.PacketConn)
		}
	}
	return conn, err
}

// joiner puts the rest behind the datagram to which it belongs.
type joiner struct {
	buf.Writer
	rest *rest
}

// WriteMultiBuffer gets one datagram after each ReadFrom.
func (j *joiner) WriteMultiBuffer(mb buf.MultiBuffer) error {
	if last := len(mb) - 1; last >= 0 && j.rest.bytes != nil {
		whole := buf.FromBytes(slices.Concat(mb[last].Bytes(), j.rest.bytes))
		whole.UDP = mb[last].UDP
		mb[last].Release()
		mb[last], j.rest.bytes = whole, nil
	}
	return j.Writer.WriteMultiBuffer(mb)
}

// Close and Interrupt are the client's.
func (j *joiner) Close() error { return common.Close(j.Writer) }
func (j *joiner) Interrupt()   { common.Interrupt(j.Writer) }

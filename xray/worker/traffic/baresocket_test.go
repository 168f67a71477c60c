package traffic

import (
	"bytes"
	"crypto/tls"
	"io"
	"testing"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/proxy/vless/encryption"
	"github.com/xtls/xray-core/transport"
	xtls "github.com/xtls/xray-core/transport/internet/tls"

	"nodeagent/xray/xraytest"
)

// A stream of VLESS without TLS and without Vision is spliced after the first bytes, which go behind the head that
// the inbound has written. Each byte is counted.
func TestBareSocketIsSpliced(t *testing.T) {
	r := newSpliceRig(t, nil)
	head := []byte{0, 0}
	writer := buf.NewBufferedWriter(buf.NewWriter(r.stream.conn)) // as in proxy/vless/inbound/inbound.go:618
	if _, err := writer.Write(head); err != nil {
		t.Fatal(err)
	}
	writer.SetFlushNext()
	r.stream.writer, r.stream.inbound = writer, &session.Inbound{Name: "vless", CanSpliceCopy: noSplice}
	r.stream.down = downlink{Writer: writer, stream: r.stream}
	if !r.stream.splices(&transport.Link{Writer: &r.stream.down}) {
		t.Fatal("the stream is not to be spliced")
	}
	r.copy()
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	go func() {
		_, _ = r.target.Write(sent[:1])
		_, _ = r.target.Write(sent[1:])
		_ = r.target.CloseWrite()
	}()
	got, err := io.ReadAll(r.client)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, append(head, sent...)) {
		t.Errorf("%d bytes came, other than the head and %d bytes", len(got), len(sent))
	}
	if err := r.ended(t); err != nil {
		t.Error(err)
	}
	if r.counted() != int64(len(sent)) {
		t.Errorf("%d bytes are counted, want %d", r.counted(), len(sent))
	}
	if r.stream.spliced.Load() == nil {
		t.Error("nothing was spliced")
	}
}

// What an inbound encrypts or frames is not spliced.
func TestOtherWritersAreNotSpliced(t *testing.T) {
	near, _ := xraytest.SocketPair(t)
	if bareSocket(buf.NewWriter(near)) != near || bareSocket(buf.NewBufferedWriter(buf.NewWriter(near))) != near {
		t.Error("a bare socket is not found")
	}
	secured := xtls.Server(near, &tls.Config{})
	for name, writer := range map[string]buf.Writer{
		"TLS":             buf.NewWriter(secured),
		"TLS, with head":  buf.NewBufferedWriter(buf.NewWriter(secured)),
		"encryption":      buf.NewBufferedWriter(buf.NewWriter(encryption.NewCommonConn(near, true))), // VLESS's own, without TLS
		"packets":         &buf.SequentialWriter{Writer: near},
		"a head of a few": buf.NewBufferedWriter(&buf.SequentialWriter{Writer: near}),
		"nothing":         buf.NewBufferedWriter(nil),
	} {
		if socket := bareSocket(writer); socket != nil {
			t.Errorf("%s: there is a socket %v", name, socket)
		}
	}
}

package hysteria

import (
	gotls "crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/apernet/quic-go"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/hysteria"

	"nodeagent/xray/worker/transport/listen"
)

// noError is H3_NO_ERROR (RFC 9114 section 8.1), with which connections are closed.
const noError = 0x100

// The windows in bytes, streams and idle time of a connection where the inbound names none, as
// in xray-core (transport/internet/hysteria/hub.go:277).
const (
	streamWindow     = 8 << 20
	connectionWindow = streamWindow * 5 / 2
	incomingStreams  = 1024
	idleTimeout      = 30 * time.Second
)

// quicConfig returns the settings of QUIC for the inbound's.
func quicConfig(params *internet.QuicParams) *quic.Config {
	or := func(value, otherwise uint64) uint64 {
		if value == 0 {
			return otherwise
		}
		return value
	}
	return &quic.Config{
		InitialStreamReceiveWindow:     or(params.InitStreamReceiveWindow, streamWindow),
		MaxStreamReceiveWindow:         or(params.MaxStreamReceiveWindow, streamWindow),
		InitialConnectionReceiveWindow: or(params.InitConnReceiveWindow, connectionWindow),
		MaxConnectionReceiveWindow:     or(params.MaxConnReceiveWindow, connectionWindow),
		MaxIdleTimeout:                 time.Duration(or(uint64(params.MaxIdleTimeout), uint64(idleTimeout/time.Second))) * time.Second,
		MaxIncomingStreams:             int64(or(uint64(params.MaxIncomingStreams), incomingStreams)),
		KeepAlivePeriod:                time.Duration(or(uint64(params.KeepAlivePeriod), uint64(listen.KeepAliveQUIC/time.Second))) * time.Second,
		DisablePathMTUDiscovery:        params.DisablePathMtuDiscovery,
		EnableDatagrams:                true,
		MaxDatagramFrameSize:           hysteria.MaxDatagramFrameSize,
		AssumePeerMaxDatagramFrameSize: hysteria.MaxDatagramFrameSize,
		DisablePathManager:             true,
	}
}

// masqueradeOf returns what answers those who are no clients.
func masqueradeOf(config *hysteria.Config) (http.Handler, error) {
	switch kind := strings.ToLower(config.MasqType); kind {
	case "", "404":
		return http.NotFoundHandler(), nil
	case "file":
		return http.FileServer(http.Dir(config.MasqFile)), nil
	case "proxy":
		return forwarding(config)
	case "string":
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for name, value := range config.MasqStringHeaders {
				w.Header().Set(name, value)
			}
			status := http.StatusOK
			if config.MasqStringStatusCode != 0 {
				status = int(config.MasqStringStatusCode)
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(config.MasqString)) // who has gone needs no answer
		}), nil
	default:
		return nil, fmt.Errorf("listen for hysteria: unknown masquerade %q", kind)
	}
}

// forwarding answers with the pages of another server.
func forwarding(config *hysteria.Config) (http.Handler, error) {
	to, err := url.Parse(config.MasqUrl)
	if err != nil {
		return nil, fmt.Errorf("listen for hysteria: the masquerade's URL: %w", err)
	}
	transport, is := http.DefaultTransport.(*http.Transport)
	if !is {
		return nil, errors.New("listen for hysteria: Go has no default transport of HTTP")
	}
	if config.MasqUrlInsecure {
		transport = transport.Clone()
		transport.TLSClientConfig = &gotls.Config{InsecureSkipVerify: true} // the inbound's own wish
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			if !config.MasqUrlRewriteHost {
				r.Out.Host = r.In.Host
			}
		},
		Transport:    transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}, nil
}

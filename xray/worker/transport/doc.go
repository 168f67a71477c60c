// Package transport makes inbounds listen with the listeners of its packages grpc and
// xhttp instead of xray-core's own, puts proxymask before a listener whose clients
// come through proxies, and lets package life watch all connections.
package transport

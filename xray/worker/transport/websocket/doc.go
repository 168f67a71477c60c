// Package websocket is a listener for the WebSocket transport. xray-core's listener lets
// connections without a request stay for ever (transport/internet/websocket/hub.go:143 sets no
// IdleTimeout), such as those of a client that asked for another path once. This one serves xray-core's handler of
// requests with a limit: TestIdleConnectionsOfHTTP.
package websocket

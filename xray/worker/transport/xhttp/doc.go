// Package xhttp is a listener for the XHTTP transport. xray-core's listener knows only
// the sessions that began with it, and a session's requests come on several connections:
// this one hands each request to the listener that has its session, in this worker or in
// another one of the node, so that sessions outlive the replacement of an inbound and the
// takeover by another worker. In xray-core 26.7.28 each listener still makes a
// table of sessions for itself (transport/internet/splithttp/hub.go:458):
// TestXHTTPSessionsOutliveTheirListener.
package xhttp

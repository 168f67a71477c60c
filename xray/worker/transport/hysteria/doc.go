// Package hysteria lets xray-core's listener for Hysteria ask a proxy that is wrapped for
// its clients.
//
// xray-core 26.7.28 hands the listener the clients of an inbound only where the proxy is
// exactly a *hysteria.Server (app/proxyman/inbound/worker.go:137). The proxies of this
// project are wrapped by package guard, so that the listener would know no client. This
// package puts the clients beside the transport's settings, where its own listener finds
// them.
package hysteria

// Package wireguard keeps xray-core's WireGuard outbounds from crashing the worker, and clients that go
// through kernel interfaces from the node itself.
//
// xray-core 26.7.28 makes an outbound's device with a bind whose functions are still nil, and
// sets them in the lines after it (proxy/wireguard/client.go:312). The device has a goroutine
// by then that brings itself up when its interface says that it is up
// (device.RoutineTUNEventReader), and xray-core's interface says so from the start
// (proxy/wireguard/netstack.go:103). Where that goroutine is the faster one, it calls a nil
// function, and the process ends: TestDeviceHearsOfNoUp. The detector of races sees the rest:
// TestWireGuardOutbound.
//
// Guard hides what an interface says of being up and down. Nothing is lost: each stream
// brings the device up by itself (proxy/wireguard/client.go:262), and a device whose interface
// is down for a while sends nothing, since nothing comes out of that interface.
package wireguard

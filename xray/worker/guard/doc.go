// Package guard wraps xray-core's inbound proxies, so that a panic while one connection
// is handled ends that connection and not the process.
package guard

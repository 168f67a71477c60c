// Package nodeapi serves the routes that nodes call: registration, heartbeats, configurations
// and reports. docs/protocol.md describes them.
package nodeapi

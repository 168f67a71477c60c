// Package listen opens the socket of a transport with its masks and REALITY, and bounds the
// handshakes of QUIC.
package listen

// Package telegram has the two peers of an MTProto proxy, for tests and the demo: a client
// that makes the obfuscated handshake, and a stand-in for Telegram's data centres. Each gives
// the test a plain connection; the test sends any bytes it likes.
//
// The handshake is described at https://core.telegram.org/mtproto/mtproto-transports.
package telegram

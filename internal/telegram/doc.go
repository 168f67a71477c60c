// Package telegram is the two ends of an MTProto proxy, for tests and the demo:
// a client that makes the obfuscated handshake, and a stand-in for Telegram's
// centres. What travels between them is the test's own: both ends give plain
// connections.
package telegram

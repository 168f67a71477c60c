// Package proxymask is a mask of xray-core's transport layer that looks at each
// connection first: it lets in the proxies that the configuration trusts, and reads the
// header of the PROXY protocol.
package proxymask

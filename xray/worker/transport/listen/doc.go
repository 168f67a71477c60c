// Package listen opens the socket of a stream transport with its masks and REALITY.
package listen

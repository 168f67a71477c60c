// Package e2e runs the real programs against each other: a Core, agents, stock Xray clients,
// and servers that count the bytes they get. The end-to-end tests and the demo use it.
package e2e

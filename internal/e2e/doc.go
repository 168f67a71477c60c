// Package e2e runs the real programs against each other: a Core, agents, stock
// Xray clients and servers that count what reaches them. The end-to-end tests
// and the demo are written with it.
package e2e

// Package e2e runs the real programs against each other: a Core, agents, stock Xray clients,
// and servers that count the bytes they get. The end-to-end tests and the demo use it.
//
// Tests wait more than they compute. Those that only wait call t.Parallel, and run after the others, as many
// at a time as the Makefile says. A test that loads the machine, measures it, or has clients that give
// up within seconds runs alone.
package e2e

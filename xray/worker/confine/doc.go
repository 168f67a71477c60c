// Package confine takes from a worker process, for good, what it does not need: with Landlock
// (landlock(7)) all files but a few, and signals to other processes.
//
// Xray parses hostile traffic in the worker. An attacker who takes the process over has the user of
// the daemon, but neither the state folder with the node's key nor any other file of that user.
//
// The files that a new configuration names need no other rules: the daemon reads the files of
// certificates and hands their contents over. Folders of unix sockets and of pages are named at the start of a
// process; a configuration that needs others is run by a new worker.
package confine

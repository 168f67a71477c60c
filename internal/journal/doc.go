// Package journal writes a program's log so that systemd's journal knows the priority of
// each line.
package journal

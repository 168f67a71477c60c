// Package process runs telemt: its program, its folder, one process and what that
// says.
package process

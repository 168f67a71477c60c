// Package wait has waits that a context can cut short, and the lengths of waits that grow
// after each failure.
package wait

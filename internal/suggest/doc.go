// Package suggest finds the known name that is nearest to a wrong one, for the end of an
// error message.
package suggest

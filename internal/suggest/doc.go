// Package suggest finds the known name that is nearest to a wrong name, for the end of an
// error text.
package suggest

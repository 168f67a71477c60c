// Package parse reads the services.xray object of Core's document into a
// [state.State]. It refuses what is wrong in the text itself and looks at nothing else:
// neither at what runs, nor at files, nor at the clock. Package check does that.
package parse

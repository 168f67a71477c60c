// Package check finds settings that Xray accepts silently and then misbehaves on.
//
// [Clients] and [Changed] return faults. They look only at the parts of a state that differ
// from the state before: neither a check of a newer version nor a certificate that has
// expired since may take down a configuration that already runs. [Warnings] returns sentences
// about settings that work and are not wise.
//
// The chapter "What is checked" of docs/operating.md lists all checks. A new check needs a row
// there.
//
// Each kind of setting has a file of its own, so that there are many small ones.
package check

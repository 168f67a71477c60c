// Package check finds settings that Xray accepts silently and then misbehaves on.
//
// [Changed] and [Clients] return errors, and look only at the parts of a state that
// differ from the state before: neither a new check nor a certificate that has expired
// since may take down what already runs. [Warnings] returns sentences about settings
// that work and are not wise.
package check

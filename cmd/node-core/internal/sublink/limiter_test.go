package sublink

import (
	"fmt"
	"testing"
)

// However many addresses guess: as many are remembered as the bound says, and these have to wait.
func TestGuessesAreBounded(t *testing.T) {
	l := newLimiter()
	for i := range 2 * maxAddresses {
		l.allowed(fmt.Sprintf("[2001:db8:%x:%x::1]:1", i>>16, i&0xffff))
	}
	if len(l.misses) != maxAddresses {
		t.Errorf("%d addresses are remembered, want %d", len(l.misses), maxAddresses)
	}
	for range maxMisses {
		l.allowed("[2001:db8:0:0:ffff::1]:1")
	}
	if l.allowed("[2001:db8::1]:1") {
		t.Error("an address that guesses need not wait, where others guess too")
	}
}

package nodeapi

import (
	"net/http"
	"strings"
	"testing"

	"nodeagent/coreclient/wire"
)

// A long message is cut between characters.
func TestLongErrorIsCut(t *testing.T) {
	c := newCore(t)
	c.want(http.StatusOK, c.post(wire.PathError, "", `{"message":"x`+strings.Repeat("ä", maxMessage)+`"}`), nil)
	errors, err := c.store.NodeErrors(t.Context(), c.node, 10)
	if err != nil || len(errors) != 1 {
		t.Fatalf("%d errors, %v", len(errors), err)
	}
	if want := "x" + strings.Repeat("ä", (maxMessage-1)/2); errors[0].Message != want {
		t.Errorf("%d bytes are kept, which end in %q", len(errors[0].Message), errors[0].Message[len(errors[0].Message)-3:])
	}
}

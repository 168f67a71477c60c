package listen

import (
	"net/http"
	"sync"
	"testing"
)

// A member of xray-core's that is not what it was is an error, not a crash.
func TestMemberOf(t *testing.T) {
	type lender struct{ server http.Server }
	lends := &lender{}
	if server, err := MemberOf[http.Server](lends, "server"); err != nil || server != &lends.server {
		t.Errorf("%v", err)
	}
	for _, of := range []any{nil, 1, lender{}, &lender{}, new(int)} {
		if _, err := MemberOf[sync.Map](of, "server"); err == nil {
			t.Errorf("%T has a map for a server", of)
		}
	}
	if _, err := MemberOf[http.Server](&lender{}, "gone"); err == nil {
		t.Error("a member that is not there was found")
	}
}

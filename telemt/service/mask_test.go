package service

import "testing"

// An inbound with fake TLS masks with its first domain, unless Core names a mask. Others mask
// nothing.
func TestMaskByDefault(t *testing.T) {
	for more, want := range map[string][2]any{
		`"modes":{"tls":true},"tlsDomains":["a.example","b.example"]`:                     {true, "a.example"},
		`"modes":{"tls":true},"tlsDomains":["a.example"],"mask":{"host":"other.example"}`: {true, "other.example"},
		`"modes":{"tls":true}`:    {true, nil},
		`"modes":{"secure":true}`: {false, nil},
	} {
		s, err := Parse([]byte(`{"inbounds":[{"nodeProtocolId":1,"tag":"m","port":1,` + more + `}]}`))
		if err != nil {
			t.Fatal(err)
		}
		got := s.ByTag()["m"].Configuration(NodeSettings{})["censorship"].(table)
		if got["mask"] != want[0] || got["mask_host"] != want[1] {
			t.Errorf("%s: mask %v to %v, want %v", more, got["mask"], got["mask_host"], want)
		}
	}
}

package suggest

import "testing"

// The nearest name is suggested, the first one of two that are as near, and none that is far away.
func TestDidYouMean(t *testing.T) {
	known := []string{"vmess", "vless", "trojan", "freedom"}
	for name, want := range map[string]string{
		"vles": `; did you mean "VLESS"?`, "fredom": `; did you mean "FREEDOM"?`, "vxess": `; did you mean "VLESS"?`,
		"wireguard": "", "": "", "\xff\xfe": "",
	} {
		if got := DidYouMean(name, known, func(known string) string { return map[string]string{"vless": "VLESS", "freedom": "FREEDOM"}[known] }); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
	if got := DidYouMean("vless", nil, nil); got != "" {
		t.Errorf("without known names: got %q", got)
	}
}

package process

import (
	"strings"
	"testing"
)

func TestReleaseWarning(t *testing.T) {
	for version, bad := range map[string]bool{"3.4.22": false, Recommended: false, "3.4.24": true, "3.4.25": true, "3.4.26": false, "": false} {
		text := ReleaseWarning(version)
		if (text != "") != bad || bad && !strings.HasPrefix(text, "telemt "+version+" is known to be bad: it stalls on large transfers") {
			t.Errorf("%s: %q", version, text)
		}
	}
}

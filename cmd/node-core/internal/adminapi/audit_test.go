package adminapi

import "testing"

// The audit log has the names of nodes, and not those of devices.
func TestDetailsLeaveOutNamesOfDevices(t *testing.T) {
	for operation, want := range map[string]string{"device-edit": `{"name":"(left out)"}`, "node-edit": `{"name":"phone"}`} {
		if got := string(details([]byte(`{"name":"phone"}`), alsoLeftOut[operation])); got != want {
			t.Errorf("%s: %s, want %s", operation, got, want)
		}
	}
}

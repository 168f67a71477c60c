package parse

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"nodeagent/internal/suggest"
	"nodeagent/xray/rawjson"
)

// serviceMembers are those of services.xray, by their names in lower case.
var serviceMembers = map[string]string{
	"inbounds": "inbounds", "outbounds": "outbounds", "routing": "routing", "dns": "dns", "policy": "policy",
	"observatory": "observatory", "burstobservatory": "burstObservatory",
}

// checkServiceMembers finds a member of services.xray that is none.
func checkServiceMembers(raw json.RawMessage) error {
	members, err := rawjson.Object(raw)
	if err != nil {
		return nil //nolint:nilerr // the next to read it says so
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		lower := strings.ToLower(name)
		if _, ok := serviceMembers[lower]; !ok {
			near := suggest.DidYouMean(lower, slices.Collect(maps.Keys(serviceMembers)), func(name string) string { return serviceMembers[name] })
			return fmt.Errorf("it has no member %q%s", name, near)
		}
	}
	return nil
}

package parse

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"nodeagent/internal/suggest"
	"nodeagent/xray/rawjson"
)

// serviceMembers are the members of services.xray, by their names in lower case.
var serviceMembers = map[string]string{
	"inbounds": "inbounds", "outbounds": "outbounds", "routing": "routing", "dns": "dns", "policy": "policy",
	"observatory": "observatory", "burstobservatory": "burstObservatory",
}

// removedMembers are those that Xray had once, with its own words (infra/conf/xray.go:608
// and 663).
var removedMembers = map[string]string{
	"reverse":   `the feature "legacy reverse" has been removed and migrated to "VLESS Reverse Proxy"`,
	"transport": "the feature Global transport config has been removed and migrated to streamSettings in inbounds and outbounds",
}

// checkServiceMembers returns an error for a member of services.xray that does not exist.
func checkServiceMembers(raw json.RawMessage) error {
	members, err := rawjson.Object(raw)
	if err != nil {
		return nil //nolint:nilerr // the decoder that reads raw next reports it
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		lower := strings.ToLower(name)
		if words := removedMembers[lower]; words != "" {
			return errors.New(words)
		}
		if _, ok := serviceMembers[lower]; !ok {
			near := suggest.DidYouMean(lower, slices.Collect(maps.Keys(serviceMembers)), func(name string) string { return serviceMembers[name] })
			return fmt.Errorf("it has no member %q%s", name, near)
		}
	}
	return nil
}

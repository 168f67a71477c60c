package check

import (
	"fmt"
	"regexp"

	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// checkSniffing finds an excluded domain whose expression does not compile: Xray does not
// say which one it is.
func checkSniffing(in state.Inbound) error {
	for i, domain := range rawjson.StringList(string(in.View().Sniffing.DomainsExcluded)) {
		pattern, is := expressionOf(domain)
		if !is {
			continue
		}
		if _, err := regexp.Compile(pattern); err != nil {
			return fmt.Errorf("sniffing.domainsExcluded[%d]: %w", i, err)
		}
	}
	return nil
}

package check

import (
	"fmt"
	"regexp"
	"strings"

	"nodeagent/xray/parse"
	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// checkSniffing finds an excluded domain whose expression does not compile: Xray excludes
// nothing by it. It makes the text lower case first, and so an error of it may be new.
func checkSniffing(in state.Inbound) error {
	for i, domain := range rawjson.StringList(string(in.View().Sniffing.DomainsExcluded)) {
		pattern, is := strings.CutPrefix(strings.ToLower(domain), parse.RegexpPrefix)
		if !is {
			continue
		}
		if _, err := regexp.Compile(pattern); err != nil {
			return fmt.Errorf("sniffing.domainsExcluded[%d]: %w (Xray makes it lower case)", i, err)
		}
	}
	return nil
}

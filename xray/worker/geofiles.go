package worker

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xtls/xray-core/app/router"
	"github.com/xtls/xray-core/common/platform"
)

// geoWatch is the name under which the files of the routing are watched.
const geoWatch = "routing"

// geoFilesOf are the files that a routing reads, where xray-core finds them.
func geoFilesOf(routing json.RawMessage) []string {
	var tree any
	if routing == nil || json.Unmarshal(routing, &tree) != nil {
		return nil
	}
	names := map[string]bool{}
	addGeoFiles(names, tree)
	var files []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		files = append(files, platform.GetAssetLocation(name))
	}
	return files
}

func addGeoFiles(names map[string]bool, tree any) {
	switch v := tree.(type) {
	case string:
		kind, rest, _ := strings.Cut(strings.TrimPrefix(v, "!"), ":")
		switch kind {
		case "geoip":
			names["geoip.dat"] = true
		case "geosite":
			names["geosite.dat"] = true
		case "ext", "ext-ip", "ext-domain", "ext-site":
			file, _, _ := strings.Cut(rest, ":")
			names[file] = true
		}
	case []any:
		for _, item := range v {
			addGeoFiles(names, item)
		}
	case map[string]any:
		for _, item := range v {
			addGeoFiles(names, item)
		}
	}
}

// freshGeoIP gives the country sets names of their version: xray-core keeps each
// set for ever by its country's code alone (app/router/condition_geoip.go), so that
// a new file would change nothing.
func freshGeoIP(config *router.Config, version int) {
	if version == 0 {
		return
	}
	for _, rule := range config.Rule {
		for _, set := range slices.Concat(rule.Geoip, rule.SourceGeoip, rule.LocalGeoip) {
			if set.CountryCode != "" {
				set.CountryCode = fmt.Sprintf("%s@%d", set.CountryCode, version)
			}
		}
	}
}

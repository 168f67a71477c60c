package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xtls/xray-core/common/geodata"
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

// assetFolders are the folders in which xray-core looks for geo files (common/platform/others.go:13).
func assetFolders() []string {
	return []string{filepath.Dir(platform.GetAssetLocation("geoip.dat")), os.Getenv("XRAY_LOCATION_ASSET"), "/usr/local/share/xray", "/usr/share/xray", "/opt/share/xray"}
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

// reloadGeoFiles makes every matcher of domains and addresses anew, of the files as they are
// now. xray-core shares what it has read of a file among all matchers
// (common/geodata/ip_registry.go:19): a new matcher alone would be made of the file as it
// was. On an error every matcher stays as it was.
func reloadGeoFiles() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in xray-core: %v", r)
		}
	}()
	return errors.Join(geodata.IPReg.Reload(), geodata.DomainReg.Reload())
}

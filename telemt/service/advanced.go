package service

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// reservedKeys are the keys of telemt's file that Advanced can't set. With other values
// the node could not reach telemt, telemt would log secrets, or users that Core does not
// know could connect.
var reservedKeys = []string{
	"include", "show_link", "general.data_path", "general.links.show", "server.api", "server.admin_api", "server.listeners", "server.port",
	"server.metrics_listen", "server.metrics_port", "server.metrics_whitelist", "access.users", "access.user_enabled",
}

func checkAdvanced(advanced map[string]any) error {
	if path := findNull("advanced", advanced); path != "" { // TOML has no null: merging it would remove a key of the node's
		return fmt.Errorf("mtproto %s is null; omit it instead", path)
	}
	for _, path := range reservedKeys {
		var at any = advanced
		for name := range strings.SplitSeq(path, ".") {
			part, _ := at.(map[string]any)
			at = part[name]
		}
		if at != nil {
			return fmt.Errorf("mtproto advanced.%s is set by the node; remove it from advanced", path)
		}
	}
	return checkFiles("advanced", advanced)
}

// checkFiles returns an error where a key names a file or folder outside of telemt's own: telemt
// would write there. Relative names lead into telemt's folder (general.data_path).
func checkFiles(path string, tree map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		place := path + "." + name
		switch v := tree[name].(type) {
		case map[string]any:
			if err := checkFiles(place, v); err != nil {
				return err
			}
		case string:
			isFile := strings.HasSuffix(name, "_path") || strings.HasSuffix(name, "_file") || strings.HasSuffix(name, "_dir")
			if isFile && v != "" && !filepath.IsLocal(v) {
				return fmt.Errorf("mtproto %s names %q, and telemt uses files in its own folder alone: give a relative name, or leave it out", place, v)
			}
		}
	}
	return nil
}

// findNull returns the path of the first null in the JSON tree, or "" if there is none.
func findNull(path string, tree any) string {
	switch v := tree.(type) {
	case nil:
		return path
	case map[string]any:
		for name, value := range v {
			if found := findNull(path+"."+name, value); found != "" {
				return found
			}
		}
	case []any:
		for i, value := range v {
			if found := findNull(fmt.Sprintf("%s[%d]", path, i), value); found != "" {
				return found
			}
		}
	}
	return ""
}

// convertNumbers replaces each json.Number in the tree with an int64, or with a float64
// if it is not a whole number. It changes the tree in place.
func convertNumbers(tree any) any {
	switch v := tree.(type) {
	case json.Number:
		if whole, err := v.Int64(); err == nil {
			return whole
		}
		fraction, _ := v.Float64() // can't fail: the decoder has checked it
		return fraction
	case map[string]any:
		for name, value := range v {
			v[name] = convertNumbers(value)
		}
	case []any:
		for i, value := range v {
			v[i] = convertNumbers(value)
		}
	}
	return tree
}

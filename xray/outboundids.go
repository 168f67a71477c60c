package xray

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// identified is the part of a VLESS or VMess outbound that has its users' ids.
type identified struct {
	Protocol string `json:"protocol"`
	Settings struct {
		Address json.RawMessage `json:"address"` // with it Xray reads the id beside it, and no vnext
		ID      json.RawMessage `json:"id"`
		Vnext   []struct {
			Users []struct {
				ID json.RawMessage `json:"id"`
			} `json:"users"`
		} `json:"vnext"`
	} `json:"settings"`
}

// checkOutboundIDs finds a user's id that is no UUID in outbounds that are new or
// changed: Xray makes another one of it. The error does not quote it.
func checkOutboundIDs(from, to State) error {
	for _, o := range to.Outbounds {
		if i := from.outboundIndex(o.Tag); i >= 0 && slices.Equal(from.Outbounds[i].Config, o.Config) {
			continue
		}
		var out identified
		_ = json.Unmarshal(o.Config, &out) // what can't be read the worker names
		if protocol := strings.ToLower(out.Protocol); protocol != "vless" && protocol != "vmess" {
			continue
		}
		ids := map[string]json.RawMessage{}
		if len(out.Settings.Address) > 0 && string(out.Settings.Address) != "null" {
			ids["settings"] = out.Settings.ID
		} else {
			for i, server := range out.Settings.Vnext {
				for j, user := range server.Users {
					ids[fmt.Sprintf("settings.vnext[%d].users[%d]", i, j)] = user.ID
				}
			}
		}
		for place, id := range ids {
			if err := checkID(id); err != nil {
				return invalid(o.Tag, "outbound %q: %s: %v", o.Tag, place, err)
			}
		}
	}
	return nil
}

func checkID(raw json.RawMessage) error {
	if len(raw) == 0 {
		raw = json.RawMessage("null")
	}
	_, err := parseUUID(&member{name: "id", value: jsontext.Value(raw)})
	return err
}

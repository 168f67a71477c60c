package agent

import (
	"errors"
	"fmt"
	"strings"

	jsonv1 "github.com/go-json-experiment/json/v1"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/telemt/service"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// desired is a NodeConfig, parsed for the engines. Its slots are 0 until assignLocked.
type desired struct {
	config  wire.NodeConfig
	xray    state.State
	mtproto service.Service
	// mtprotoClients attributes the traffic of the MTProto clients. It is config.ClientMap,
	// unless the MTProto part comes from a newer configuration: see withdraw.
	mtprotoClients map[string]wire.ClientRef
}

func (d *desired) inbounds() int { return len(d.xray.Inbounds) + len(d.mtproto.Inbounds) }
func (d *desired) clients() int  { return d.xray.Clients() + d.mtproto.Clients() }

// parseConfig reads a NodeConfig. Its error is a *fault.Fault in the text: another try of
// the same document does not help.
func parseConfig(body []byte) (desired, error) {
	d, err := readConfig(body)
	if invalid, ok := errors.AsType[*service.InvalidError](err); ok {
		return d, fault.InText(invalid.Tag, "%v", err)
	}
	if err != nil && fault.From(err) == nil {
		err = fault.InText("", "%v", err)
	}
	return d, err
}

// readConfig parses a NodeConfig. On an error, the revision is set if it could be read.
func readConfig(body []byte) (desired, error) {
	var d desired
	// This is wire.NodeConfig with pointers, which tell whether a member is there. A proxy
	// between node and Core may answer 200 with other JSON; taken for a configuration, it
	// would disconnect all clients.
	var config struct {
		Revision  *int64                    `json:"revision"`
		ClientMap map[string]wire.ClientRef `json:"clientMap"`
		Services  *wire.Services            `json:"services"`
	}
	err := jsonv1.Unmarshal(body, &config)
	if config.Revision != nil {
		d.config.Revision = *config.Revision // the report of the error names it
	}
	if wrong, ok := errors.AsType[*jsonv1.UnmarshalTypeError](err); ok {
		// The whole path would publish keys of the client map, which can be passwords.
		member, _, _ := strings.Cut(wrong.Field, ".")
		return d, fmt.Errorf("read the configuration: in %s there is a JSON %s, want one for %s", member, wrong.Value, wrong.Type)
	}
	if err != nil {
		return d, fmt.Errorf("read the configuration: %w", err)
	}
	if config.Revision == nil || config.Services == nil {
		return d, errors.New("read the configuration: it has no revision or no services, so Core did not send it; check what answers at Core's address")
	}
	d.config = wire.NodeConfig{Revision: *config.Revision, ClientMap: config.ClientMap, Services: *config.Services}
	d.mtprotoClients = config.ClientMap
	if d.config.Services.Xray != nil {
		if d.xray, err = parse.Service(d.config.Services.Xray, func(key string) bool {
			_, known := d.config.ClientMap[key]
			return known
		}); err != nil {
			return d, err
		}
	}
	if d.config.Services.MTProto != nil {
		if d.mtproto, err = service.Parse(d.config.Services.MTProto); err != nil {
			return d, err
		}
	}
	return d, nil
}

package agent

import (
	"encoding/json"
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
	revision  int64
	clientMap clientMap
	xray      state.State
	// routing is Xray's routing object with the users as Core names them; xray.Routing has
	// their names inside the worker.
	routing json.RawMessage
	// unreadable has the inbounds that could not be read, as far as they could: see
	// parse.Result.
	unreadable map[string]state.Inbound
	mtproto    service.Service
	// mtprotoUnreadable is unreadable for MTProto: see service.Result. mtprotoRefused says that
	// all MTProto inbounds were refused together.
	mtprotoUnreadable map[string]service.Inbound
	mtprotoRefused    bool
	// mtprotoClients attributes the traffic of the MTProto clients. It is clientMap,
	// unless the MTProto part comes from a newer configuration: see withdraw.
	mtprotoClients clientMap
}

func (d *desired) inbounds() int { return len(d.xray.Inbounds) + len(d.mtproto.Inbounds) }
func (d *desired) clients() int  { return d.xray.Clients() + d.mtproto.Clients() }

// parseConfig reads a NodeConfig part by part. unread has the parts that could not be read.
// An error means that the document as a whole is wrong; it is a *fault.Fault in the text:
// another try of the same document does not help.
func parseConfig(body []byte) (d desired, unread []*fault.Fault, err error) {
	d, unread, err = readConfig(body)
	if err != nil && fault.From(err) == nil {
		err = fault.InText("", "%v", err)
	}
	return d, unread, err
}

// readConfig parses a NodeConfig. On an error, the revision is set if it could be read.
func readConfig(body []byte) (_ desired, unread []*fault.Fault, _ error) {
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
		d.revision = *config.Revision // the report of the error names it
	}
	if wrong, ok := errors.AsType[*jsonv1.UnmarshalTypeError](err); ok {
		// The whole path would publish keys of the client map, which can be passwords.
		member, _, _ := strings.Cut(wrong.Field, ".")
		return d, nil, fmt.Errorf("read the configuration: in %s there is a JSON %s, want one for %s", member, wrong.Value, wrong.Type)
	}
	if err != nil {
		return d, nil, fmt.Errorf("read the configuration: %w", err)
	}
	if config.Revision == nil || config.Services == nil {
		return d, nil, errors.New("read the configuration: it has no revision or no services, so Core did not send it; check what answers at Core's address")
	}
	d.clientMap = newClientMap(config.ClientMap)
	d.mtprotoClients = d.clientMap
	if config.Services.Xray != nil {
		read, err := parse.Parts(config.Services.Xray, d.clientMap.has)
		if err != nil {
			return d, nil, err
		}
		d.xray, d.routing, d.unreadable, unread = read.State, read.Routing, read.Unreadable, read.Refused
		for _, in := range d.xray.Inbounds {
			d.clientMap.share(in.Clients)
		}
	}
	if config.Services.MTProto != nil {
		read := service.Parts(config.Services.MTProto)
		d.mtproto, d.mtprotoUnreadable, d.mtprotoRefused = read.Service, read.Unreadable, read.Whole
		unread = append(unread, read.Refused...)
	}
	refused, err := d.shareGrants()
	return d, append(unread, refused...), err
}

package agent

import (
	"encoding/json"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/telemt/service"
	"nodeagent/xray"
	"nodeagent/xray/state"
)

// Core gets the warnings about the running configuration with every failure, each with its
// place.
func TestFailuresTellWarnings(t *testing.T) {
	const text = "allocate is not used by Xray: leave it out"
	for name, c := range map[string]struct {
		fails func(*node)
		want  map[string]any
	}{
		"a refused configuration": {
			func(n *node) {
				n.engine.fail = func(state.State) error {
					return fault.PortTaken("vless-7", 443, "taken")
				}
				n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 4, 443), `"4"`, behind(4)
			},
			map[string]any{"revision": 4.0, "tag": "vless-7", "port": 443.0, "warnings": []any{text}},
		},
		"a crash": {
			func(n *node) { n.inbox.XrayFailed(xray.Failure{Crash: true, Fault: fault.OnHost("", "killed")}) },
			map[string]any{"warnings": []any{text}},
		},
		"a failure of MTProto": {
			func(n *node) {
				n.inbox.MTProtoFailed(service.Failure{Tag: "mtproto-9", Port: 8443, Message: "taken"})
			},
			map[string]any{"tag": "mtproto-9", "port": 8443.0, "warnings": []any{text}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := openStore(t)
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, db)
				n.engine.warnings = []string{text}
				c.fails(n)
				n.during(t, time.Minute)
				reports := n.core.posted(wire.PathError)
				if len(reports) == 0 {
					t.Fatal("Core was told nothing")
				}
				var body wire.ErrorRequest
				if err := json.Unmarshal([]byte(reports[0].body), &body); err != nil || !reflect.DeepEqual(body.Details, c.want) {
					t.Errorf("details %v, want %v (%v)", body.Details, c.want, err)
				}
			})
		})
	}
}

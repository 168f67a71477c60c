package adminapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
)

// write is a request that changes something, with names in its path that ids stand for.
type write struct {
	operation, method, path, body string
	// row is the path of the row whose ETag the request may name; empty for none.
	row string
}

// writes has a request for every operation that changes something, in an order in which all of them succeed.
var writes = []write{
	{"user-add", "POST", "/users", `{"name":"alice"}`, ""},
	{"user-edit", "PATCH", "/users/alice", `{"note":"a"}`, "/users/alice"},
	{"user-bulk", "POST", "/bulk/users", `{"create":[{"name":"bob"}],"update":[{"user":"alice","note":"b"}]}`, ""},
	{"plan-add", "POST", "/plans", `{"name":"basic"}`, ""},
	{"plan-edit", "PATCH", "/plans/basic", `{"limitBytes":5000}`, "/plans/basic"},
	{"group-add", "POST", "/groups", `{"name":"family","addNodes":["fra1"]}`, ""},
	{"group-edit", "PATCH", "/groups/family", `{"note":"a"}`, "/groups/family"},
	{"subscription-add", "POST", "/subscriptions", `{"user":"alice","limitBytes":1000,"expiry":{"afterSeconds":86400}}`, ""},
	{"subscription-bulk", "POST", "/bulk/subscriptions", `{"create":[{"user":"bob"}],"update":[{"subscription":"SUB","note":"x"}]}`, ""},
	{"subscription-edit", "PATCH", "/subscriptions/SUB", `{"note":"a"}`, "/subscriptions/SUB"},
	{"subscription-rotate", "POST", "/subscriptions/SUB/rotate", ``, "/subscriptions/SUB"},
	{"subscription-rotate-link", "POST", "/subscriptions/SUB/rotate-link", ``, "/subscriptions/SUB"},
	{"subscription-reset", "POST", "/subscriptions/SUB/reset", ``, "/subscriptions/SUB"},
	{"subscription-extend", "POST", "/subscriptions/SUB/extend", `{"seconds":60}`, "/subscriptions/SUB"},
	{"subscription-top-up", "POST", "/subscriptions/SUB/top-up", `{"bytes":10}`, "/subscriptions/SUB"},
	{"subscription-disable", "POST", "/subscriptions/SUB/disable", ``, "/subscriptions/SUB"},
	{"subscription-enable", "POST", "/subscriptions/SUB/enable", ``, "/subscriptions/SUB"},
	{"device-edit", "PATCH", "/devices/DEVICE", `{"name":"phone"}`, ""},
	{"device-remove", "DELETE", "/devices/DEVICE", ``, ""},
	{"node-add", "POST", "/nodes", `{"name":"n1"}`, ""},
	{"node-edit", "PATCH", "/nodes/n1", `{"note":"a"}`, "/nodes/n1"},
	{"node-code", "POST", "/nodes/n1/code", `{}`, ""},
	{"node-rotate", "POST", "/nodes/n1/rotate", ``, "/nodes/n1"},
	{"node-mtproto", "PUT", "/nodes/n1/mtproto", `{}`, "/nodes/n1"},
	{"protocol-add", "POST", "/protocols", `{"node":"n1","flags":{"protocol":"vless","port":443,"security":"reality","listen":"0.0.0.0"},"tag":"in"}`, ""},
	{"protocol-edit", "PATCH", "/protocols/n1%2Fin", `{"note":"a"}`, "/protocols/n1%2Fin"},
	{"protocol-rotate", "POST", "/protocols/n1%2Fin/rotate", `{}`, "/protocols/n1%2Fin"},
	{"host-add", "POST", "/hosts", `{"protocol":"n1/in","address":"cdn.example"}`, ""},
	{"host-edit", "PATCH", "/hosts/HOST", `{"remark":"a"}`, "/hosts/HOST"},
	{"host-remove", "DELETE", "/hosts/HOST", ``, "/hosts/HOST"},
	{"outbound-add", "POST", "/outbounds", `{"node":"n1","tag":"o","config":{"protocol":"blackhole"}}`, ""},
	{"outbound-edit", "PATCH", "/nodes/n1/outbounds/o", `{"enabled":false}`, "/nodes/n1/outbounds/o"},
	{"outbound-replace", "PUT", "/nodes/n1/outbounds/o", `{"protocol":"freedom"}`, "/nodes/n1/outbounds/o"},
	{"outbound-remove", "DELETE", "/nodes/n1/outbounds/o", ``, "/nodes/n1/outbounds/o"},
	{"routing-add", "POST", "/routing-profiles", `{"name":"r"}`, ""},
	{"routing-edit", "PATCH", "/routing-profiles/r", `{"note":"a"}`, "/routing-profiles/r"},
	{"routing-remove", "DELETE", "/routing-profiles/r", ``, "/routing-profiles/r"},
	{"client-template-set", "PUT", "/client-templates/mine", `TEMPLATE`, ""},
	{"client-template-remove", "DELETE", "/client-templates/mine", ``, ""},
	{"client-rule-set", "PUT", "/client-rules/mine", `{"name":"mine","note":"","agents":["x"],"below":"","form":"links","hide":[],"headers":{},"builtIn":false}`, ""},
	{"client-rule-remove", "DELETE", "/client-rules/mine", ``, ""},
	{"announce", "PUT", "/announcement", `{"url":"https://next.example"}`, ""},
	{"webhook-add", "POST", "/webhooks", `{"url":"https://shop.example/hook","secret":"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}`, ""},
	{"webhook-remove", "DELETE", "/webhooks/WEBHOOK", ``, ""},
	{"token-add", "POST", "/tokens", `{"name":"t","role":"support"}`, ""},
	{"token-remove", "DELETE", "/tokens/t", ``, ""},
	{"import", "POST", "/import", `{"node":"n1","users":[{"name":"carol","origin":"x","subscriptions":[{}]}]}`, ""},
	{"subscription-remove", "DELETE", "/subscriptions/SUB", ``, "/subscriptions/SUB"},
	{"user-remove", "DELETE", "/users/bob", ``, "/users/bob"},
	{"user-erase", "POST", "/users/alice/erase", ``, ""},
	{"group-remove", "DELETE", "/groups/family", ``, "/groups/family"},
	{"plan-remove", "DELETE", "/plans/basic", ``, "/plans/basic"},
	{"protocol-remove", "DELETE", "/protocols/n1%2Fin", ``, "/protocols/n1%2Fin"},
	{"node-remove", "DELETE", "/nodes/n1", ``, "/nodes/n1"},
}

// notWrites are the operations that are no GET and change nothing in the database.
var notWrites = map[string]string{
	"wait":         "waits for nodes",
	"webhook-test": "sends one request to the operator's server",
}

// wholeRows are the operations that set or remove a row which has no ETag: such a row is set as a whole, or is
// a name.
var wholeRows = "client-template-set client-template-remove client-rule-set client-rule-remove device-edit device-remove announce token-remove webhook-remove"

// Every operation of the OpenAPI document that changes something writes one entry of the audit log in
// the transaction of the change, does its work once for one Idempotency-Key, and is refused with the ETag of a
// row that has changed. An operation that writes lacks is an error.
func TestEachWrite(t *testing.T) {
	w := newWriting(t)
	left := documentOf(t, w.Server)
	for id, op := range left {
		if op.method == http.MethodGet || notWrites[id] != "" {
			delete(left, id)
		}
	}
	for _, one := range writes {
		op, known := left[one.operation]
		if !known || op.method != one.method {
			t.Errorf("the document has no operation %s with the method %s", one.operation, one.method)
		}
		if one.row == "" && op.method != http.MethodPost && !strings.Contains(" "+wholeRows+" ", " "+one.operation+" ") {
			t.Errorf("%s changes a row: name the row whose ETag it heeds", one.operation)
		}
		delete(left, one.operation)
		w.try(one)
	}
	for id, op := range left {
		t.Errorf("%s %s (%s) is not tried: write it into the list", op.method, op.path, id)
	}
}

// writing is a server whose audit log is watched.
type writing struct {
	t *testing.T
	*Server
	token string
}

func newWriting(t *testing.T) *writing {
	w := &writing{t: t, Server: newServer(t)}
	w.SendsBy(takesAll{})
	w.token = addToken(t, w.Server, coreapi.NewToken{Name: "shop", Role: coreapi.Owner})
	return w
}

// takesAll sends nothing, and takes every webhook.
type takesAll struct{ noWebhooks }

func (takesAll) Check(string, secret.Text) ([]byte, error) { return []byte("key"), nil }

// audited returns the operations of the caller in the audit log.
func (w *writing) audited() (operations []string) {
	w.t.Helper()
	entries, _, err := w.store.ListAudit(w.t.Context(), corestore.AuditFilter{Who: "shop"}, corestore.List{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		operations = append(operations, e.Operation)
	}
	return operations
}

// named puts ids in the place of names.
func (w *writing) named(text string) string {
	w.t.Helper()
	ctx := w.t.Context()
	for name, id := range map[string]func() (int64, error){
		"SUB": func() (int64, error) {
			subs, err := w.store.Subscriptions(ctx)
			return subs[0].ID, err
		},
		"HOST": func() (int64, error) {
			hosts, err := w.store.Hosts(ctx, 0)
			return hosts[0].ID, err
		},
		"WEBHOOK": func() (int64, error) {
			hooks, err := w.store.Webhooks(ctx)
			return hooks[0].ID, err
		},
		"DEVICE": func() (int64, error) {
			subs, err := w.store.Subscriptions(ctx)
			if err != nil {
				return 0, err
			}
			// Devices come with the fetch of a link, and are stored at once where they are bounded.
			bounded := subs[0]
			bounded.LimitDevices = 1
			if _, err := w.store.AdmitDevice(ctx, bounded, corestore.Device{HWID: "phone"}, time.Now()); err != nil {
				return 0, err
			}
			devices, err := w.store.Devices(ctx, subs[0].ID)
			return devices[0].ID, err
		},
	} {
		if strings.Contains(text, name) {
			id, err := id()
			if err != nil {
				w.t.Fatal(err)
			}
			text = strings.ReplaceAll(text, name, fmt.Sprint(id))
		}
	}
	return text
}

// register registers a node as the node does it.
func (w *writing) register(name string) {
	w.t.Helper()
	node, err := w.store.Node(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	code, err := w.store.NewCode(w.t.Context(), node.ID, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, _, err := w.store.Register(w.t.Context(), wire.RegisterRequest{Code: code, Name: name, Host: "h", IP: "192.0.2.1"}, "attempt"); err != nil {
		w.t.Fatal(err)
	}
}

// template returns the JSON of a template for client applications.
func (w *writing) template() string {
	w.t.Helper()
	all, err := w.clientTemplates(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := json.Marshal(all[0])
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

func (w *writing) try(one write) {
	w.t.Helper()
	if one.body == "TEMPLATE" {
		one.body = w.template()
	}
	path, body, row := coreapi.Prefix+w.named(one.path), w.named(one.body), coreapi.Prefix+w.named(one.row)
	if one.operation == "node-rotate" { // a node that is not registered has no key
		w.register("n1")
	}
	before := len(w.audited())
	header := []string{headerKey, "key of " + one.operation}
	if one.row != "" {
		stale := request(w.t, w.Server, one.method, path, w.token, body, "If-Match", `"of before"`)
		if stale.Code != http.StatusPreconditionFailed {
			w.t.Errorf("%s with an old ETag: got %d, %s", one.operation, stale.Code, stale.Body)
		}
		tag := request(w.t, w.Server, http.MethodGet, row, w.token, "").Header().Get("ETag")
		if tag == "" {
			w.t.Errorf("%s has no ETag", one.row)
		}
		header = append(header, "If-Match", tag)
	}
	if all := w.audited(); len(all) != before {
		w.t.Errorf("%s was refused, and the audit log has it", one.operation)
	}
	first := request(w.t, w.Server, one.method, path, w.token, body, header...)
	if first.Code/100 != 2 {
		w.t.Errorf("%s: got %d, %s", one.operation, first.Code, first.Body)
		return
	}
	again := request(w.t, w.Server, one.method, path, w.token, body, header...)
	replayed := again.Code == first.Code && again.Body.String() == first.Body.String() && again.Header().Get("Idempotent-Replayed") == "true"
	// An answer with a secret is not kept.
	if refused := again.Code == http.StatusConflict && strings.Contains(again.Body.String(), coreapi.CodeRepeated); !replayed && !refused {
		w.t.Errorf("%s again, with the same key: got %d, %s", one.operation, again.Code, again.Body)
	}
	if all := w.audited(); len(all) != before+1 || all[before] != one.operation {
		w.t.Errorf("the audit log has %q after %s", all[before:], one.operation)
	}
}

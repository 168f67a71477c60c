package adminapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

func registerAudit(a api) {
	read(a, operation{id: "audit", method: http.MethodGet, path: "/audit", noun: "reports", summary: "List who changed what", role: coreapi.Operator},
		func(ctx context.Context, in *struct {
			PageIn
			Since time.Time `query:"since" doc:"Only later entries."`
			Who   string    `query:"who" maxLength:"100" doc:"The name of a token, or socket."`
			Sort  string    `query:"sort" enum:"id,-id" default:"id"`
		},
		) (coreapi.Page[corestore.AuditEntry], error) {
			list, err := in.list(in.Sort)
			if err != nil {
				return coreapi.Page[corestore.AuditEntry]{}, err
			}
			return pageOf(a.server.store.ListAudit(ctx, corestore.AuditFilter{Since: in.Since, Who: in.Who}, list))
		})
}

const (
	maxDetails = 2000 // bytes of what is kept of a body
	maxValue   = 100  // bytes of one value
	left       = "(left out)"
)

// target is a path as the audit log has it: without the UUIDs of subscriptions, which are
// credentials.
func target(path string) string {
	parts := strings.Split(strings.TrimPrefix(path, coreapi.Prefix), "/")
	for i, part := range parts {
		if _, err := uuid.Parse(part); err == nil {
			parts[i] = "(uuid)"
		}
	}
	return strings.Join(parts, "/")
}

// alsoLeftOut names a member of an operation's body that tells of a person.
var alsoLeftOut = map[string]string{"device-edit": "name"}

// details is what the audit log has of a request's body: names, numbers and short texts.
// Objects, which may have keys and passwords, notes about people and the member private are left out.
func details(body []byte, private string) []byte {
	var members map[string]any
	if json.Unmarshal(body, &members) != nil {
		return []byte("{}")
	}
	_, signed := members["secret"] // a webhook: its address can be a secret too
	for name, value := range members {
		switch v := value.(type) {
		case bool, float64, nil:
		case string:
			if name == "note" || name == private || name == "secret" || signed && name == "url" || len(v) > maxValue {
				members[name] = left
			}
		case []any:
			members[name] = fmt.Sprintf("(%d items)", len(v))
		default:
			members[name] = left
		}
	}
	kept, err := json.Marshal(members)
	if err != nil || len(kept) > maxDetails {
		return []byte("{}")
	}
	return kept
}

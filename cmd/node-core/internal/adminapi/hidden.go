package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// credential is the form of a UUID, with hyphens or without them. Without them it is the form of
// an MTProto secret too.
var credential = regexp.MustCompile(`(?i)[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}`)

// hidden stands in a text where a credential was.
const hidden = "(hidden)"

func withoutCredentials(text string) string { return credential.ReplaceAllString(text, hidden) }

// mayHaveCredentials reports whether the caller may read credentials.
func mayHaveCredentials(ctx context.Context) bool {
	return callerOf(ctx).role.May(coreapi.Support)
}

// hideCredentials takes the credentials out of subscriptions where the caller may not have them.
// So do the functions below with what nodes say: a node names a client by its UUID.
func hideCredentials(ctx context.Context, subs []corestore.Subscription) {
	if mayHaveCredentials(ctx) {
		return
	}
	for i := range subs {
		subs[i].UUID, subs[i].MTProtoSecret, subs[i].Credentials = "", "", nil
	}
}

func hideInNode(ctx context.Context, n *corestore.Node) {
	if n.LastError != nil && !mayHaveCredentials(ctx) {
		n.LastError = new(withoutCredentials(*n.LastError))
	}
}

func hideInRefusals(ctx context.Context, all []corestore.Refusal) {
	if mayHaveCredentials(ctx) {
		return
	}
	for i := range all {
		all[i].Client, all[i].Tag, all[i].Reason = "", withoutCredentials(all[i].Tag), withoutCredentials(all[i].Reason)
	}
}

func hideInHealth(ctx context.Context, h *corestore.NodeStatus) {
	if h == nil || mayHaveCredentials(ctx) {
		return
	}
	for i := range h.Inbounds {
		h.Inbounds[i].Reason = withoutCredentials(h.Inbounds[i].Reason)
	}
	for i := range h.Warnings {
		h.Warnings[i] = withoutCredentials(h.Warnings[i])
	}
}

func hideInErrors(ctx context.Context, all []corestore.NodeError) error {
	if mayHaveCredentials(ctx) {
		return nil
	}
	for i := range all {
		all[i].Message = withoutCredentials(all[i].Message)
		var details any
		in := json.NewDecoder(bytes.NewReader(all[i].Details))
		in.UseNumber() // a number stays as the node wrote it
		if err := in.Decode(&details); err != nil {
			return fmt.Errorf("read the details of an error of node %d: %w", all[i].NodeID, err)
		}
		raw, err := json.Marshal(withoutClients(details))
		if err != nil {
			return fmt.Errorf("hide credentials in an error of node %d: %w", all[i].NodeID, err)
		}
		all[i].Details = raw
	}
	return nil
}

// withoutClients returns a value of JSON without credentials in its texts and names, and with each
// member "client" empty.
func withoutClients(value any) any {
	switch value := value.(type) {
	case string:
		return withoutCredentials(value)
	case []any:
		for i := range value {
			value[i] = withoutClients(value[i])
		}
	case map[string]any:
		shown := make(map[string]any, len(value))
		for name, member := range value {
			if _, is := member.(string); is && name == "client" {
				member = ""
			}
			shown[withoutCredentials(name)] = withoutClients(member)
		}
		return shown
	}
	return value
}

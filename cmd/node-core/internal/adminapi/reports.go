package adminapi

import (
	"context"
	"net/http"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// LimitIn is the parameter of a report that shows the newest rows.
type LimitIn struct {
	Limit int `query:"limit" minimum:"1" maximum:"1000000" default:"1000" doc:"How many rows the answer has at most."`
}

func registerReports(a api) {
	s := a.server
	read(a, operation{id: "usage", method: http.MethodGet, path: "/usage", noun: "reports", summary: "Show the usage rows: bytes per minute, inbound and client, the newest first", role: coreapi.ReadOnly},
		func(ctx context.Context, in *LimitIn) ([]corestore.UsageRow, error) {
			return s.store.Usage(ctx, in.Limit)
		})
	read(a, operation{id: "events", method: http.MethodGet, path: "/events", noun: "reports", summary: "Show which users came online and went offline, the newest last", role: coreapi.ReadOnly},
		func(ctx context.Context, in *LimitIn) ([]corestore.EventRow, error) {
			return s.store.Events(ctx, in.Limit)
		})
}

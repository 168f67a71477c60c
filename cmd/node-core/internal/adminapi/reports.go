package adminapi

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"time"
	_ "time/tzdata" // a report in a named zone works on a host without zones

	"github.com/danielgtaylor/huma/v2"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/internal/logkey"
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
	read(a, operation{id: "online", method: http.MethodGet, path: "/online", noun: "reports", summary: "Show who is online, from where and since when", role: coreapi.ReadOnly},
		func(ctx context.Context, in *struct {
			LimitIn
			Node string `query:"node" doc:"Name or id of a node: only on that one."`
			User string `query:"user" doc:"Name or id of a user: only that one."`
		},
		) ([]coreapi.Session, error) {
			return s.online(ctx, in.Node, in.User, in.Limit)
		})
	registerUsageReport(a)
	registerEvents(a)
}

func (s *Server) online(ctx context.Context, node, user string, limit int) ([]coreapi.Session, error) {
	filter := corestore.SessionFilter{Limit: limit}
	var err error
	if filter.NodeID, err = s.nodeID(ctx, node); err != nil {
		return nil, err
	}
	if user != "" {
		found, err := s.store.User(ctx, user)
		if err != nil {
			return nil, err
		}
		filter.UserID = found.ID
	}
	return s.store.Online(ctx, filter)
}

// reportIn are the parameters of a report.
type reportIn struct {
	By       string    `query:"by" required:"true" doc:"user, subscription, node, protocol or group"`
	Since    time.Time `query:"since" doc:"Only later usage."`
	Until    time.Time `query:"until" doc:"Only earlier usage."`
	Step     string    `query:"step" doc:"minute, hour, day or month; without it, one row for each thing"`
	TimeZone string    `query:"timezone" maxLength:"100" default:"UTC" doc:"Where days and months begin, such as Europe/Berlin."`
	Format   string    `query:"format" enum:"json,csv" default:"json"`
	Limit    int       `query:"limit" minimum:"1" maximum:"1000000" default:"100000" doc:"How many rows the answer has at most."`
}

func (in *reportIn) query() (corestore.ReportQuery, error) {
	q := corestore.ReportQuery{By: in.By, Since: in.Since, Until: in.Until, Step: in.Step}
	if err := q.Check(); err != nil {
		return q, badInput{err}
	}
	zone, err := time.LoadLocation(in.TimeZone)
	if err != nil || in.TimeZone == "Local" {
		return q, badInput{fmt.Errorf("time zone %q is unknown: want one such as Europe/Berlin or UTC", in.TimeZone)}
	}
	q.Location = zone
	return q, nil
}

// registerUsageReport registers the report, which is written while it is read: it may have a
// million rows.
func registerUsageReport(a api) {
	op := a.describe(operation{id: "usage-report", method: http.MethodGet, path: "/usage/report", noun: "reports", summary: "Sum up usage by user, subscription, node, inbound or group", role: coreapi.ReadOnly})
	schema := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[coreapi.UsageReport](), true, "UsageReport")
	op.Responses = map[string]*huma.Response{"200": {Description: "The report", Content: map[string]*huma.MediaType{
		"application/json": {Schema: schema}, "text/csv": {Schema: &huma.Schema{Type: huma.TypeString}},
	}}}
	huma.Register(a.API, op, func(ctx context.Context, in *reportIn) (*huma.StreamResponse, error) {
		q, err := in.query()
		if err != nil {
			return nil, a.server.problemOf(ctx, op.OperationID, err)
		}
		return &huma.StreamResponse{Body: func(hctx huma.Context) {
			write, kind := writeReport, "application/json"
			if in.Format == "csv" {
				write, kind = writeReportCSV, "text/csv; charset=utf-8"
			}
			hctx.SetHeader("Content-Type", kind)
			hctx.SetStatus(http.StatusOK)
			if err := write(ctx, a.server.store, q, in.Limit, hctx.BodyWriter()); err != nil {
				if ctx.Err() == nil {
					a.server.log.Error("write a report of usage", logkey.Error, err)
				}
				panic(http.ErrAbortHandler) // the client must not take half of it for all
			}
		}}, nil
	})
}

// writeReport writes a report as a coreapi.UsageReport. Its totals are the sums of its rows, also where usage
// comes while it is written; those of a report that is truncated are of all usage.
func writeReport(ctx context.Context, store *corestore.Store, q corestore.ReportQuery, limit int, to io.Writer) (err error) {
	w := bufio.NewWriter(to)
	_, _ = w.WriteString(`{"rows":[`)
	n := 0
	truncated := false
	var totals coreapi.Traffic
	for row, err := range store.Report(ctx, q) {
		if err != nil {
			return err
		}
		if truncated = n == limit; truncated {
			break
		}
		if n > 0 {
			_ = w.WriteByte(',')
		}
		n++
		totals = corestore.AddTraffic(totals, row.Traffic)
		encoded, err := json.Marshal(row)
		if err != nil {
			return err
		}
		if _, err := w.Write(encoded); err != nil {
			return err
		}
	}
	if truncated {
		if totals, err = store.ReportTotals(ctx, q); err != nil {
			return err
		}
	}
	end, err := json.Marshal(struct {
		Totals    coreapi.Traffic `json:"totals"`
		Truncated bool            `json:"truncated,omitempty"`
	}{totals, truncated})
	if err != nil {
		return err
	}
	_, _ = w.WriteString("],")
	_, _ = w.Write(end[1:])
	_ = w.WriteByte('\n')
	return w.Flush()
}

// writeReportCSV writes a report as CSV (RFC 4180). A report without steps has no times.
func writeReportCSV(ctx context.Context, store *corestore.Store, q corestore.ReportQuery, limit int, to io.Writer) error {
	w := csv.NewWriter(to)
	_ = w.Write([]string{"time", "id", "name", "bytesUp", "bytesDown"})
	n := 0
	for row, err := range store.Report(ctx, q) {
		if err != nil {
			return err
		}
		if n == limit {
			break
		}
		n++
		at := ""
		if row.Time != nil {
			at = row.Time.Format(time.RFC3339)
		}
		if err := w.Write([]string{at, strconv.FormatInt(row.ID, 10), harmless(row.Name), strconv.FormatInt(row.BytesUp, 10), strconv.FormatInt(row.BytesDown, 10)}); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// harmless is a name in a cell that a spreadsheet does not take for a formula.
func harmless(name string) string {
	if name != "" && (name[0] == '=' || name[0] == '+' || name[0] == '-' || name[0] == '@') {
		return "'" + name
	}
	return name
}

package adminapi

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"nodeagent/coreapi"
	"nodeagent/internal/logkey"
)

const (
	maxBody = 1 << 20 // bytes of a request, where an operation says nothing else
	// roleMember is the member of an operation in the OpenAPI document that names the least
	// role that may.
	roleMember = "x-role"
)

// operation describes an operation of the API.
type operation struct {
	id      string // stable: programs generate names of it
	method  string
	path    string // below coreapi.Prefix
	noun    string
	summary string
	role    coreapi.Role // the least that may
	status  int          // of a success; 0 for 200
	maxBody int64        // 0 for maxBody
	secret  bool         // the answer has a secret: it is not kept for a repeated request
	// etag is the kind of row that the parameters of the path name, for an operation that
	// reads or changes one; empty for none.
	etag string
}

// changes reports whether the operation changes something in Core.
func (op operation) changes() bool { return op.method != http.MethodGet && op.id != "wait" }

// api is where the operations are registered.
type api struct {
	huma.API
	server *Server
}

// newRoutes makes the routes of the API, and returns the first element of each path below coreapi.Prefix.
func newRoutes(s *Server) (routes http.Handler, nouns []string) {
	mux := http.NewServeMux()
	a := api{server: s, API: humago.New(mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "node-core", Version: "1", Description: "Controls the nodes of a Core: what they serve, to whom, and how much traffic was used."},
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", Description: "A token of 'node-core token add'. Over the unix socket there is none."}},
			},
		},
		OpenAPIPath:                  coreapi.Prefix + "/openapi",
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	})}
	for _, register := range []func(api){
		registerUsers, registerBulk, registerImport, registerSubscriptions, registerStaticFiles, registerPlans, registerGroups, registerNodes, registerProtocols, registerOutbounds, registerRouting, registerHosts, registerDevices, registerClientApps, registerReports, registerWait, registerTokens, registerAudit, registerWebhooks,
	} {
		register(a)
	}
	describeHeaders(a.OpenAPI())
	serveDocs(mux, a.OpenAPI())
	refuseOthers(mux, a.OpenAPI())
	nouns = []string{"openapi.json", "openapi.yaml", path.Base(docsPath)}
	for p := range a.OpenAPI().Paths {
		noun, _, _ := strings.Cut(strings.TrimPrefix(p, coreapi.Prefix+"/"), "/")
		nouns = append(nouns, noun)
	}
	slices.Sort(nouns)
	return mux, slices.Compact(nouns)
}

// refuseOthers answers requests to paths that do not exist, and to those that do with another
// method.
func refuseOthers(mux *http.ServeMux, document *huma.OpenAPI) {
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, newProblem(http.StatusNotFound, coreapi.CodeNoRoute, "the API has no such path; "+coreapi.Prefix+"/openapi.json lists all"))
	})
	for path, item := range document.Paths {
		var methods []string
		for method, op := range map[string]*huma.Operation{
			http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodPatch: item.Patch, http.MethodDelete: item.Delete,
		} {
			if op != nil {
				methods = append(methods, method)
			}
		}
		slices.Sort(methods)
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			writeProblem(w, newProblem(http.StatusMethodNotAllowed, coreapi.CodeMethodNotAllowed, "this path takes "+strings.Join(methods, ", ")))
		})
	}
}

// describe makes the description of an operation for the package huma.
func (a api) describe(op operation) huma.Operation {
	if !op.role.May(coreapi.ReadOnly) {
		panic(fmt.Sprintf("operation %s has no role", op.id))
	}
	if op.maxBody == 0 {
		op.maxBody = maxBody
	}
	return huma.Operation{
		OperationID: op.id, Method: op.method, Path: coreapi.Prefix + op.path, Summary: op.summary, Tags: []string{op.noun},
		DefaultStatus: op.status, MaxBodyBytes: op.maxBody, Security: []map[string][]string{{"token": {}}},
		BodyReadTimeout: -1, // huma's own would end requests that take longer than five seconds, as of GET below
		Description:     fmt.Sprintf("The least role is %s.", op.role), Extensions: map[string]any{roleMember: string(op.role)},
		Middlewares: huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
			if who := callerOf(ctx.Context()); !who.role.May(op.role) {
				a.refuse(ctx, newProblem(http.StatusForbidden, coreapi.CodeForbidden, fmt.Sprintf("%s has the role %s, and %s needs %s", who.name, who.role, op.id, op.role)))
				return
			}
			if op.method == http.MethodGet {
				// net/http ends the context of a request when the deadline for reading passes, also
				// once everything is read: a long report would end in the middle.
				_, w := humago.Unwrap(ctx)
				_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // not every writer of a test has one
			}
			switch {
			case op.changes():
				_, w := humago.Unwrap(ctx)
				untilAnswered(ctx.Context(), w, func(c context.Context) { a.serveChange(huma.WithContext(ctx, c), op, next) })
			case op.etag != "":
				a.serveRow(ctx, op, next)
			default:
				next(ctx)
			}
		}},
	}
}

// refuse answers a request with a problem, before its operation is run.
func (a api) refuse(ctx huma.Context, p *coreapi.Problem) {
	_, w := humago.Unwrap(ctx)
	writeProblem(w, p)
}

// answer is the answer of an operation that changes no node.
type answer[Body any] struct {
	Body Body
}

// read registers an operation that changes no node.
func read[In, Out any](a api, op operation, run func(context.Context, *In) (Out, error)) {
	huma.Register(a.API, a.describe(op), func(ctx context.Context, in *In) (*answer[Out], error) {
		out, err := run(ctx, in)
		if err != nil {
			return nil, a.server.problemOf(ctx, op.id, err)
		}
		return &answer[Out]{out}, nil
	})
}

// changeAnswer is the answer of an operation that changes nodes.
type changeAnswer[Body any] struct {
	Change  string   `header:"Node-Core-Change" doc:"What has changed of nodes' configurations, as JSON of at most 2 KB; the body of /wait has it."`
	Warning []string `header:"Node-Core-Warning" doc:"What the nodes will warn of."`
	Body    Body
}

// change registers an operation that changes nodes. Its answer comes after the commit. It wakes
// the nodes' heartbeats (wake), and says in a header for what one can wait.
func change[In, Out any](a api, op operation, run func(context.Context, *In) (Out, changed, error)) {
	huma.Register(a.API, a.describe(op), func(ctx context.Context, in *In) (*changeAnswer[Out], error) {
		began := time.Now()
		body, c, err := run(ctx, in)
		c.began = began
		a.server.wake(ctx, c.nodes) // also where the change is stored, and its answer can't be made
		if err != nil {
			return nil, a.server.problemOf(ctx, op.id, err)
		}
		out := &changeAnswer[Out]{Body: body}
		for _, text := range c.warnings {
			out.Warning = append(out.Warning, printable(text))
		}
		// The change is committed, also where its nodes can't be read to wait for them.
		if raw, err := a.server.toWaitFor(ctx, c); err != nil {
			a.server.log.Error("find what a command can wait for", logkey.Error, err)
		} else {
			out.Change = string(raw)
		}
		return out, nil
	})
}

package adminapi

import (
	"fmt"
	"html"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"nodeagent/coreapi"
)

const docsPath = coreapi.Prefix + "/docs"

// isDocument reports whether a request is for the description of the API, and not for Core.
func isDocument(r *http.Request) bool {
	return r.Method == http.MethodGet && (r.URL.Path == docsPath || r.URL.Path == coreapi.Prefix+"/openapi.json" || r.URL.Path == coreapi.Prefix+"/openapi.yaml")
}

// serveDocs serves a page with the operations of the document. It needs nothing from elsewhere.
func serveDocs(mux *http.ServeMux, document *huma.OpenAPI) {
	page := []byte(docPage(document))
	mux.HandleFunc("GET "+docsPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_, _ = w.Write(page) // fails only where the browser has gone
	})
}

const docStyle = `body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}
code,pre{font:14px/1.4 monospace;background:#f4f4f4;padding:0 .2em}pre{padding:.5em;overflow-x:auto}
h2{border-bottom:1px solid #ccc;margin-top:2em}h3{margin-bottom:0}table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.2em 1em .2em 0}`

// docPage writes the page by hand: html/template would add two megabytes to the program.
func docPage(document *huma.OpenAPI) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<!doctype html><html lang=en><meta charset=utf-8><title>node-core API</title><style>%s</style><h1>The admin API of node-core</h1>", docStyle)
	fmt.Fprintf(&b, "<p>The <a href=%q>OpenAPI document</a> has everything on this page. A request needs <code>Authorization: Bearer TOKEN</code>, but on the unix socket.", coreapi.Prefix+"/openapi.json")
	byNoun := map[string][]*huma.Operation{}
	for _, item := range document.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				byNoun[op.Tags[0]] = append(byNoun[op.Tags[0]], op)
			}
		}
	}
	for _, noun := range slices.Sorted(maps.Keys(byNoun)) {
		fmt.Fprintf(&b, "<h2>%s</h2>", html.EscapeString(noun))
		slices.SortFunc(byNoun[noun], func(a, b *huma.Operation) int { return strings.Compare(a.Path+a.Method, b.Path+b.Method) })
		for _, op := range byNoun[noun] {
			docOperation(&b, op)
		}
	}
	b.WriteString("<h2>Bodies</h2>")
	schemas := document.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		docSchema(&b, name, schemas[name])
	}
	return b.String()
}

func docOperation(b *strings.Builder, op *huma.Operation) {
	fmt.Fprintf(b, "<h3 id=%q>%s</h3><p><code>%s %s</code><br>%s", op.OperationID, html.EscapeString(op.Summary), op.Method, html.EscapeString(op.Path), html.EscapeString(op.Description))
	if len(op.Parameters) > 0 {
		b.WriteString("<table>")
		for _, p := range op.Parameters {
			fmt.Fprintf(b, "<tr><td><code>%s</code><td>%s<td>%s", html.EscapeString(p.Name), p.In, html.EscapeString(p.Description))
		}
		b.WriteString("</table>")
	}
	if op.RequestBody != nil {
		for _, media := range op.RequestBody.Content {
			b.WriteString("<p>Body: " + docType(media.Schema))
		}
	}
	for status, response := range op.Responses {
		if strings.HasPrefix(status, "2") {
			for _, media := range response.Content {
				fmt.Fprintf(b, "<p>Answer %s: %s", status, docType(media.Schema))
			}
		}
	}
}

// docType names the type of a body or a member.
func docType(s *huma.Schema) string {
	switch {
	case s == nil:
		return "anything"
	case s.Ref != "":
		name := html.EscapeString(s.Ref[strings.LastIndex(s.Ref, "/")+1:])
		return fmt.Sprintf("<a href=\"#%s\">%s</a>", name, name)
	case s.Type == huma.TypeArray:
		return "list of " + docType(s.Items)
	case s.Type == "":
		return "anything"
	}
	return html.EscapeString(s.Type)
}

func docSchema(b *strings.Builder, name string, s *huma.Schema) {
	fmt.Fprintf(b, "<h3 id=%q>%s</h3><table>", html.EscapeString(name), html.EscapeString(name))
	for _, member := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[member]
		needed := ""
		if slices.Contains(s.Required, member) {
			needed = "always there"
		}
		fmt.Fprintf(b, "<tr><td><code>%s</code><td>%s<td>%s<td>%s", html.EscapeString(member), docType(p), needed, html.EscapeString(p.Description))
	}
	b.WriteString("</table>")
}

package adminapi

import (
	"context"
	"errors"
	"net/http"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// LinkFiles writes what a host of static files serves for a subscription.
type LinkFiles interface {
	Files(ctx context.Context, sub corestore.Subscription, url string, pages bool) (coreapi.StaticFiles, error)
}

// noFiles is for a server that serves no links.
type noFiles struct{}

func (noFiles) Files(context.Context, corestore.Subscription, string, bool) (f coreapi.StaticFiles, err error) {
	return f, errors.New("this Core serves no links")
}

// FilesBy says what writes the files of subscriptions. It is called before the first request.
func (s *Server) FilesBy(f LinkFiles) { s.files = f }

func registerStaticFiles(a api) {
	s := a.server
	read(a, operation{id: "subscription-files", method: http.MethodGet, path: "/subscription-files", noun: "subscriptions", summary: "List what a host of static files serves for each subscription", role: coreapi.Operator},
		func(ctx context.Context, in *struct {
			Cursor string `query:"cursor" maxLength:"1000" doc:"The member next of the page before; without it, the first page."`
			Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"How many subscriptions the page has at most. The files of one can have some hundred KiB."`
			URL    string `query:"url" required:"true" maxLength:"500" pattern:"^https?://[^?#\\s]*[^?#/\\s]$" doc:"Address of the host of the files, with the path before /sub, and without a slash at the end. The pages name it."`
			Pages  bool   `query:"pages" default:"true" doc:"Whether there are pages for browsers. Their QR codes take most of the time."`
		},
		) (page coreapi.Page[coreapi.StaticFiles], err error) {
			list, err := PageIn{in.Cursor, in.Limit}.list("id")
			if err != nil {
				return page, err
			}
			subs, err := pageOf(s.store.ListSubscriptions(ctx, corestore.SubscriptionFilter{}, list))
			if err != nil {
				return page, err
			}
			page.Next, page.Items = subs.Next, make([]coreapi.StaticFiles, len(subs.Items))
			for i, sub := range subs.Items {
				if page.Items[i], err = s.files.Files(ctx, sub, in.URL, in.Pages); err != nil {
					return page, err
				}
			}
			return page, nil
		})
}

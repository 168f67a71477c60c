package coreapi

import (
	"context"
	"iter"
	"net/url"
	"strconv"
)

// StaticFiles are what a host of static files serves for a subscription, below /sub/TOKEN/.
type StaticFiles struct {
	ID    int64        `json:"id"`
	Token string       `json:"token" doc:"The last part of the subscription's own link. It is a secret."`
	Files []StaticFile `json:"files" nullable:"false"`
	// Without says why there are no files; empty where there are.
	Without string `json:"without,omitempty" doc:"Why there are no files; missing where there are."`
}

// StaticFile is one of them. Its body has the credentials of a subscription.
type StaticFile struct {
	Name string `json:"name" doc:"A form, such as links, or page.LANGUAGE.html."`
	Body string `json:"body"`
}

// StaticFiles returns the files of all subscriptions. cdn is the address of the host of the files, with the
// path before /sub, and without a slash at the end; the pages name it. pages says whether there are pages
// for browsers.
func (c *Client) StaticFiles(ctx context.Context, cdn string, pages bool) iter.Seq2[StaticFiles, error] {
	return list[StaticFiles](ctx, c, "/subscription-files", url.Values{"url": {cdn}, "limit": {"50"}, "pages": {strconv.FormatBool(pages)}})
}

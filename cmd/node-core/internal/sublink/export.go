package sublink

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"nodeagent/cmd/node-core/internal/clientapps"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// Why a subscription has no files.
const (
	countsDevices    = "it has a limit of devices, which only Core can count"
	changedMeanwhile = "it was changed meanwhile: removed, or given another link, which the next export has"
)

// Files returns what a host of static files serves for a subscription below /sub/TOKEN/: each form under
// its own name, as Core has it, and with pages the page in each language as page.LANGUAGE.html. url is the
// address of that host, with the path before /sub, and without a slash at the end. The pages name it.
//
// The answers are those for an application that says nothing of itself. What Core says in headers stands
// in lines of comment before the list of links. A subscription that has no files, because sub is older than
// its removal for instance, is no error.
func (h *Handler) Files(ctx context.Context, sub corestore.Subscription, url string, pages bool) (coreapi.StaticFiles, error) {
	token := h.store.LinkToken(sub)
	files := coreapi.StaticFiles{ID: sub.ID, Token: token, Files: []coreapi.StaticFile{}}
	linked, group, err := h.find(ctx, token)
	switch {
	case errors.Is(err, corestore.ErrNotFound):
		files.Without = changedMeanwhile
		return files, nil
	case err != nil:
		return files, err
	case linked.LimitDevices > 0:
		files.Without = countsDevices
		return files, nil
	}
	notice := texts[languages[0]].notice(linked.Subscription, time.Now())
	for _, name := range group.apps.Names() {
		choice, known := group.apps.Choose("", name)
		if !known || clientapps.CheckFile(name) != nil {
			continue // an unknown form, or a template that was stored before CheckFile
		}
		f := formatOf(choice)
		body, err := h.cache.body(group, f, linked, notice)
		if err != nil {
			return files, fmt.Errorf("write the form %s: %w", name, err)
		}
		files.Files = append(files.Files, coreapi.StaticFile{Name: name, Body: string(h.commented(body, f, linked.Subscription))})
	}
	if !pages {
		return files, nil
	}
	ways, pictures := group.plan.For(linked.Subscription, linked.User), newGallery()
	for _, tag := range languages {
		own := url + corestore.LinkPrefix + token + "/"
		data := h.pageOf(linked.Subscription, ways, tag, own+clientapps.Links, nil, pictures)
		data.Applications = applications(func(form string) string { return own + form }, h.options.Title)
		page, err := data.write()
		if err != nil {
			return files, err
		}
		files.Files = append(files.Files, coreapi.StaticFile{Name: "page." + tag.String() + ".html", Body: string(page)})
	}
	return files, nil
}

// commented puts what Core says in headers before a list of links, as lines that applications read.
func (h *Handler) commented(body []byte, f *format, sub corestore.Subscription) []byte {
	if !f.perWay {
		return body
	}
	if f.base64 {
		raw, err := base64.StdEncoding.DecodeString(string(body))
		if err != nil {
			return body // Core has encoded it
		}
		body = raw
	}
	var b strings.Builder
	fmt.Fprintf(&b, "#profile-title: %s\n#profile-update-interval: %s\n#subscription-userinfo: %s\n", encoded(h.options.Title), updateHours, userInfo(sub))
	if h.options.SupportURL != "" {
		fmt.Fprintf(&b, "#support-url: %s\n", h.options.SupportURL)
	}
	body = append([]byte(b.String()), body...)
	if f.base64 {
		body = base64.StdEncoding.AppendEncode(nil, body)
	}
	return body
}

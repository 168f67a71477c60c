// Package sublink serves the subscriptions' own links. An application fetches its link to learn all
// addresses of the nodes, and fetches it again to learn of changes.
//
// GET /sub/TOKEN answers in the form that the application's User-Agent asks for, and
// /sub/TOKEN/FORMAT in that form. A browser gets a page. The token is a secret: it is in no log.
// An address from which many wrong tokens come has to wait. A known token is always answered: all
// users may come from one address, that of a proxy for instance.
//
// The parts that are the same for all subscriptions of a group are kept (cache): each form of the answer
// with gaps for the credentials (filled).
package sublink

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/internal/logkey"
)

// updateEvery is how often applications are asked to fetch again.
const updateEvery = 6 * time.Hour

// Options are what an operator says of the answers.
type Options struct {
	URL        string   // under which applications reach Core, without a slash at the end
	Mirrors    []string // further addresses under which they reach it, as URL
	Title      string   // of the subscription in applications
	SupportURL string   // empty for none
}

// Handler serves the links.
type Handler struct {
	store   *corestore.Store
	options Options
	log     *slog.Logger
	guesses *limiter
	cache   *cache
}

// New makes a Handler. The store has to stay open until all requests are answered.
func New(store *corestore.Store, options Options, log *slog.Logger) *Handler {
	return &Handler{store: store, options: options, log: log, guesses: newLimiter(), cache: newCache(store, log)}
}

// ServeHTTP answers GET and HEAD.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer") // the path is a secret
	header.Set("X-Robots-Tag", "noindex")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET is answered here", http.StatusMethodNotAllowed)
		return
	}
	token, form, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, corestore.LinkPrefix), "/")
	linked, group, err := h.find(r.Context(), token)
	switch {
	case errors.Is(err, corestore.ErrNotFound) && !h.guesses.allowed(r.RemoteAddr):
		header.Set("Retry-After", "60")
		http.Error(w, "too many unknown links from this address; try again in a minute", http.StatusTooManyRequests)
		return
	case errors.Is(err, corestore.ErrNotFound):
		http.Error(w, "there is no such subscription; ask for a new link", http.StatusNotFound)
		return
	case err != nil:
		h.log.Error("answer a subscription's link", logkey.Error, err)
		http.Error(w, "the subscription can't be read now; try again", http.StatusServiceUnavailable)
		return
	}
	h.describe(header, linked.Subscription)
	if form == "page" || form == "" && isBrowser(r) {
		// A link by itself is for every device, so that a page with links would be a way round the limit.
		if linked.LimitDevices > 0 {
			group = group.nothing()
		}
		h.page(w, r, linked.Subscription, group.plan.For(linked.Subscription, linked.User))
		return
	}
	choice, known := group.apps.Choose(r.UserAgent(), form)
	if !known {
		http.Error(w, fmt.Sprintf("the form %q is unknown; want one of %s, page", form, strings.Join(group.apps.Names(), ", ")), http.StatusNotFound)
		return
	}
	choice.SetHeaders(header, h.values(linked))
	h.answer(w, r, formatOf(choice), linked, group)
}

// answer writes the subscription for an application.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, f *format, linked corestore.Linked, group *groupLinks) {
	header := w.Header()
	admitted, err := h.admit(r.Context(), header, r, linked.Subscription)
	if err != nil {
		h.log.Error("look at the device that fetches a subscription", logkey.Error, err)
		http.Error(w, "the subscription can't be read now; try again", http.StatusServiceUnavailable)
		return
	}
	_, text := wordsFor(r.Header.Get("Accept-Language"))
	notice := text.notice(linked.Subscription, time.Now())
	if !admitted {
		group = group.nothing()
		if notice = text.TooManyDevices; header.Get("X-Hwid-Not-Supported") != "" {
			notice = text.NoDevice
		}
	}
	if notice != "" {
		header.Set("Announce", encoded(notice))
	}
	body, err := h.cache.body(group, f, linked, notice)
	if err != nil {
		h.log.Error("write a subscription", logkey.Form, f.name, logkey.Error, err)
		http.Error(w, "the subscription can't be written in this form", http.StatusInternalServerError)
		return
	}
	header.Set("Content-Type", f.contentType)
	header.Set("Content-Disposition", disposition(h.options.Title, f.extension))
	_, _ = w.Write(body)
}

// find returns the subscription of a token and the links of its group: none for a subscription that
// lets nobody in.
func (h *Handler) find(ctx context.Context, token string) (corestore.Linked, *groupLinks, error) {
	linked, err := h.store.SubscriptionByLink(ctx, token)
	if err != nil {
		return linked, nil, err
	}
	group, err := h.cache.group(ctx, linked.GroupID, linked.Changes)
	if err == nil && !linked.Served() {
		group = group.nothing()
	}
	return linked, group, err
}

// userInfo is what applications show of traffic and end. total and expire are left out where there is no
// limit or end.
func userInfo(sub corestore.Subscription) string {
	up, down := sub.Used()
	info := fmt.Sprintf("upload=%d; download=%d", up, down)
	if most := limit(sub); most > 0 {
		info += fmt.Sprintf("; total=%d", most)
	}
	if sub.ExpiresAt != nil {
		info += fmt.Sprintf("; expire=%d", sub.ExpiresAt.Unix())
	}
	return info
}

// describe sets the headers that applications show.
func (h *Handler) describe(header http.Header, sub corestore.Subscription) {
	header.Set("Subscription-Userinfo", userInfo(sub))
	header.Set("Profile-Title", encoded(h.options.Title))
	// The page of the subscription, for a button in the application.
	header.Set("Profile-Web-Page-Url", h.options.URL+corestore.LinkPrefix+h.store.LinkToken(sub)+"/page")
	header.Set("Profile-Update-Interval", updateHours)
	if h.options.SupportURL != "" {
		header.Set("Support-Url", h.options.SupportURL)
	}
}

// encoded is how a header has a text that may be in any language.
func encoded(text string) string { return "base64:" + base64.StdEncoding.EncodeToString([]byte(text)) }

func isBrowser(r *http.Request) bool {
	return strings.HasPrefix(r.UserAgent(), "Mozilla/") && strings.Contains(r.Header.Get("Accept"), "text/html")
}

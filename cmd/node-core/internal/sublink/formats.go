package sublink

import (
	"net/url"
	"strconv"
	"strings"

	"nodeagent/cmd/node-core/internal/clientapps"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

// format is a form of the answer.
type format struct {
	name        string // of the template, or that of a list of links
	contentType string
	extension   string // of the file that an application stores
	hide        []string
	// write writes the whole answer, or, with perWay set, the part of a way that is alone.
	write  func([]nodeconfig.Way) ([]byte, error)
	perWay bool
	base64 bool // the answer is encoded in base64, as the applications around Xray read lists
}

// formatOf returns the form that was chosen for an application.
func formatOf(c clientapps.Choice) *format {
	if t := c.Template; t != nil {
		return &format{name: t.Name, contentType: t.ContentType(), extension: t.Extension(), hide: c.Hide, write: t.Render}
	}
	return &format{name: c.Form, contentType: "text/plain; charset=utf-8", extension: "txt", hide: c.Hide, write: plain, perWay: true, base64: c.Form == clientapps.Links}
}

// key names the form among those that are kept for a group.
func (f *format) key() string { return f.name + "\n" + strings.Join(f.hide, " ") }

// plain is one link a line. The https:// form of a Telegram link is left out, since applications
// would take it for an HTTP proxy.
func plain(ways []nodeconfig.Way) ([]byte, error) {
	var b strings.Builder
	for _, w := range ways {
		for _, link := range w.Links {
			if !strings.HasPrefix(link, "https://t.me/") {
				b.WriteString(link + "\n")
			}
		}
	}
	return []byte(b.String()), nil
}

// shown returns the ways that are not hidden from an application.
func (f *format) shown(ways []nodeconfig.Way) []nodeconfig.Way {
	if len(f.hide) == 0 {
		return ways
	}
	var shown []nodeconfig.Way
	for _, w := range ways {
		if !clientapps.Hidden(w, f.hide) {
			shown = append(shown, w)
		}
	}
	return shown
}

// values are what the headers of rules can say of a subscription.
func (h *Handler) values(l corestore.Linked) clientapps.Values {
	up, down := l.Used()
	v := clientapps.Values{
		"{title}": h.options.Title, "{support}": h.options.SupportURL, "{user}": l.User,
		"{used}": size(added(up, down)), "{limit}": "", "{left}": "", "{expires}": "",
	}
	if most := limit(l.Subscription); most > 0 {
		v["{limit}"], v["{left}"] = size(most), size(left(l.Subscription))
	}
	if l.ExpiresAt != nil {
		v["{expires}"] = l.ExpiresAt.UTC().Format(timeForm)
	}
	return v
}

// limit is how many bytes this period has, with those of a top-up; 0 for no limit.
func limit(sub corestore.Subscription) int64 {
	if sub.LimitBytes == 0 {
		return 0
	}
	return added(sub.LimitBytes, sub.ExtraBytes)
}

// left is how many bytes of the limit are left.
func left(sub corestore.Subscription) int64 {
	up, down := sub.Used()
	return max(0, limit(sub)-added(up, down))
}

// added is the sum of two numbers of bytes, without an overflow.
func added(a, b int64) int64 {
	if sum := a + b; sum >= 0 {
		return sum
	}
	return 1<<63 - 1
}

// disposition names the file that an application stores.
func disposition(title, extension string) string {
	return "attachment; filename*=UTF-8''" + url.PathEscape(title+"."+extension)
}

var updateHours = strconv.Itoa(int(updateEvery.Hours()))

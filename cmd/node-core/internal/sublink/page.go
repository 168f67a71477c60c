package sublink

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/text/language"
	"rsc.io/qr"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/internal/logkey"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// pageLink is a link with its picture.
type pageLink struct {
	Name, Text string
	Picture    template.URL // a data URL; empty where the link is too long for a QR code
}

// application opens the subscription in a client by a URL of its own scheme.
type application struct {
	Name string
	URL  template.URL
}

type pageData struct {
	Words        words
	Language     string
	Direction    string
	Title        string
	Status       string
	Used, Limit  string // bytes in words; Limit is empty for none
	Expires      string // empty for never
	Own          pageLink
	Mirrors      []pageLink // the same link at other addresses
	Applications []application
	Links        []pageLink
	SupportURL   string
}

// page writes the subscription for a person. It needs no script, and the browser is told to run
// none.
func (h *Handler) page(w http.ResponseWriter, r *http.Request, sub corestore.Subscription, ways []nodeconfig.Way) {
	own := h.options.URL + corestore.LinkPrefix + h.store.LinkToken(sub)
	tag, text := wordsFor(r.Header.Get("Accept-Language"))
	up, down := sub.Used()
	data := pageData{
		Words: text, Language: tag.String(), Direction: direction(tag), Title: h.options.Title, Status: text.Status[sub.Status], Used: size(added(up, down)),
		Own: picture(h.options.Title, own), Applications: applications(own, h.options.Title), SupportURL: h.options.SupportURL,
	}
	for _, mirror := range h.options.Mirrors {
		data.Mirrors = append(data.Mirrors, picture(mirror, mirror+corestore.LinkPrefix+h.store.LinkToken(sub)))
	}
	if most := limit(sub); most > 0 {
		data.Limit = size(most)
	}
	if sub.ExpiresAt != nil {
		data.Expires = sub.ExpiresAt.UTC().Format(timeForm)
	}
	for _, way := range ways {
		for _, link := range way.Links {
			data.Links = append(data.Links, picture(way.Node.Name+"-"+way.Protocol.Tag, link))
		}
	}
	var body bytes.Buffer
	if err := pageTemplate.Execute(&body, data); err != nil {
		h.log.Error("write the page of a subscription", logkey.Error, err)
		http.Error(w, "the page can't be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", tag.String())
	w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'")
	_, _ = w.Write(body.Bytes())
}

// picture draws a QR code.
func picture(name, text string) pageLink {
	link := pageLink{Name: name, Text: text}
	if code, err := qr.Encode(text, qr.L); err == nil { // the error says that the text is too long
		link.Picture = template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(code.PNG()))
	}
	return link
}

// applications are the schemes with which common clients import a subscription.
func applications(own, title string) []application {
	escaped, name := url.QueryEscape(own), url.PathEscape(title)
	return []application{
		{"v2rayNG", template.URL("v2rayng://install-sub?url=" + escaped + "&name=" + url.QueryEscape(title))},
		{"Hiddify", template.URL("hiddify://import/" + own + "#" + name)},
		{"Happ", template.URL("happ://add/" + own)},
		{"Streisand", template.URL("streisand://import/" + own + "#" + name)},
		{"Clash, Mihomo", template.URL("clash://install-config?url=" + escaped + "&name=" + url.QueryEscape(title))},
		{"sing-box", template.URL("sing-box://import-remote-profile?url=" + escaped + "#" + name)},
	}
}

// size writes bytes in the unit that leaves at most four digits before the point.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	value, i := float64(n), 0
	for value >= 1024 && i < len(units)-1 {
		value, i = value/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[i])
}

func direction(tag language.Tag) string {
	if base, _ := tag.Base(); strings.EqualFold(base.String(), "fa") {
		return "rtl"
	}
	return "ltr"
}

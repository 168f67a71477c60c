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

	"nodeagent/cmd/node-core/internal/clientapps"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/cmd/node-core/internal/share"
	"nodeagent/internal/logkey"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// pageLink is a link with its picture.
type pageLink struct {
	Name, Text string
	Picture    template.URL // a data URL of a QR code; empty where the link is longer than maxPictured, or the page has maxPictures codes already
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
	tag, _ := wordsFor(r.Header.Get("Accept-Language"))
	body, err := h.pageOf(sub, ways, tag, h.options.URL+corestore.LinkPrefix+h.store.LinkToken(sub), h.options.Mirrors, newGallery()).write()
	if err != nil {
		h.log.Error("write the page of a subscription", logkey.Error, err)
		http.Error(w, "the page can't be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", tag.String())
	w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'")
	_, _ = w.Write(body)
}

// pageOf returns what the page says in a language. own is the address that applications fetch; mirrors are
// the addresses of other hosts with the same links, each with the path before /sub.
func (h *Handler) pageOf(sub corestore.Subscription, ways []nodeconfig.Way, tag language.Tag, own string, mirrors []string, pictures gallery) pageData {
	text := texts[tag]
	up, down := sub.Used()
	data := pageData{
		Words: text, Language: tag.String(), Direction: direction(tag), Title: h.options.Title, Status: text.Status[sub.Status], Used: size(added(up, down)),
		Own: pictures.link(h.options.Title, own), Applications: applications(func(string) string { return own }, h.options.Title), SupportURL: h.options.SupportURL,
	}
	for _, mirror := range mirrors {
		data.Mirrors = append(data.Mirrors, pictures.link(mirror, mirror+corestore.LinkPrefix+h.store.LinkToken(sub)))
	}
	if most := limit(sub); most > 0 {
		data.Limit = size(most)
	}
	if sub.ExpiresAt != nil {
		data.Expires = sub.ExpiresAt.UTC().Format(timeForm)
	}
	for _, way := range ways {
		for _, link := range way.Links {
			data.Links = append(data.Links, pictures.link(way.Node.Name+"-"+way.Protocol.Tag, link))
		}
		if e := way.Endpoint; e != nil && e.Protocol == "wireguard" {
			if file, err := share.WireGuardConfig(*e); err == nil {
				data.Links = append(data.Links, pictures.link(way.Node.Name+"-"+way.Protocol.Tag+".conf", file))
			}
		}
	}
	return data
}

func (d pageData) write() ([]byte, error) {
	var body bytes.Buffer
	err := pageTemplate.Execute(&body, d)
	return body.Bytes(), err
}

const (
	// maxPictures bounds the QR codes of a page: each costs about a millisecond and some KiB.
	maxPictures = 40
	// maxPictured is the longest text that is drawn, in bytes: a longer one has squares that are too
	// small for the camera of a telephone.
	maxPictured = 1200
)

// gallery has the QR codes of a page by their texts. Pages in other languages share it.
type gallery map[string]template.URL

func newGallery() gallery { return gallery{} }

// link returns a link with its picture, as far as the page has one.
func (g gallery) link(name, text string) pageLink {
	link := pageLink{Name: name, Text: text, Picture: g[text]}
	if link.Picture != "" || len(g) == maxPictures || len(text) > maxPictured {
		return link
	}
	if code, err := qr.Encode(text, qr.L); err == nil {
		link.Picture = template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(code.PNG()))
		g[text] = link.Picture
	}
	return link
}

// applications are the schemes with which common clients import a subscription. own returns the address of
// a form for a client that takes that one.
func applications(own func(form string) string, title string) []application {
	links, name := own(clientapps.Links), url.PathEscape(title)
	return []application{
		{"v2rayNG", template.URL("v2rayng://install-sub?url=" + url.QueryEscape(links) + "&name=" + url.QueryEscape(title))},
		{"Hiddify", template.URL("hiddify://import/" + links + "#" + name)},
		{"Happ", template.URL("happ://add/" + links)},
		{"Streisand", template.URL("streisand://import/" + links + "#" + name)},
		{"Clash, Mihomo", template.URL("clash://install-config?url=" + url.QueryEscape(own("mihomo")) + "&name=" + url.QueryEscape(title))},
		{"sing-box", template.URL("sing-box://import-remote-profile?url=" + url.QueryEscape(own("sing-box")) + "#" + name)},
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

package clientapps

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/http/httpguts"

	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

// Bounds of rules.
const (
	maxHidden     = 50
	maxHeaders    = 20
	maxValue      = 1000 // bytes of a header's value before it is filled
	maxFilled     = 2000 // and after it
	maxVersionLen = 30
)

// ours are headers that no rule sets: those that Core sets itself, and those that decide how an answer
// is carried or kept.
var ours = []string{
	"Cache-Control", "Connection", "Content-Disposition", "Content-Encoding", "Content-Length", "Content-Security-Policy", "Content-Type", "Date", "Keep-Alive",
	"Location", "Proxy-Authenticate", "Referrer-Policy", "Retry-After", "Set-Cookie", "Strict-Transport-Security", "Subscription-Userinfo", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "Www-Authenticate", "X-Hwid-Active", "X-Hwid-Limit", "X-Hwid-Max-Devices-Reached", "X-Hwid-Not-Supported",
}

// hideable are the words of Hide: protocols, transports and securities.
var hideable = []string{
	"vless", "vmess", "trojan", "shadowsocks", "hysteria", "socks", "http", "mtproto", "wireguard",
	"tcp", "kcp", "ws", "httpupgrade", "grpc", "xhttp", "none", "tls", "reality", "vision", "masks",
}

var version = regexp.MustCompile(`^\d+(\.\d+)*$`)

// CheckRule refuses a rule that means nothing or could do harm.
func CheckRule(r coreapi.ClientRule) error {
	if err := checkName(r.Name, r.Note); err != nil {
		return err
	}
	if err := checkAgents(r.Agents); err != nil {
		return err
	}
	switch {
	case r.Below != "" && (!version.MatchString(r.Below) || len(r.Below) > maxVersionLen):
		return fmt.Errorf("version %q: want numbers with dots between, such as 2.1", r.Below)
	case r.Below != "" && len(r.Agents) == 0:
		return errors.New("a version needs a word of the User-Agent, behind which it stands")
	case r.Form != "" && checkName(r.Form, "") != nil && r.Form != "links" && r.Form != "plain":
		return fmt.Errorf("form %q is unknown: want links, plain or the name of a template", r.Form)
	case len(r.Hide) > maxHidden:
		return fmt.Errorf("there are %d hidden ways: want at most %d", len(r.Hide), maxHidden)
	case len(r.Headers) > maxHeaders:
		return fmt.Errorf("there are %d headers: want at most %d", len(r.Headers), maxHeaders)
	}
	for _, way := range r.Hide {
		for word := range strings.SplitSeq(way, "+") {
			if !slices.Contains(hideable, word) {
				return fmt.Errorf("the hidden way %q has the word %q: want words of %s, with + between", way, word, strings.Join(hideable, ", "))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		if err := checkHeader(name, r.Headers[name]); err != nil {
			return err
		}
	}
	return nil
}

func checkHeader(name, value string) error {
	switch {
	case !httpguts.ValidHeaderFieldName(name) || len(name) > maxWord:
		return fmt.Errorf("%q is no name of a header", name)
	case slices.Contains(ours, http.CanonicalHeaderKey(name)):
		return fmt.Errorf("the header %s is Core's own", name)
	case len(value) > maxValue || strings.ContainsFunc(value, unicode.IsControl):
		return fmt.Errorf("the value of %s has %d bytes, or control characters: want at most %d bytes without", name, len(value), maxValue)
	}
	for _, found := range placeholder.FindAllString(value, -1) {
		if !slices.Contains(placeholders, found) {
			return fmt.Errorf("the value of %s has %s; it can have %s", name, found, strings.Join(placeholders, ", "))
		}
	}
	return nil
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// placeholders are what the value of a header can have.
var placeholders = []string{"{title}", "{support}", "{user}", "{used}", "{limit}", "{left}", "{expires}"}

// Values are what placeholders stand for, by their names with the braces.
type Values map[string]string

// header returns the value of a header for a subscription. A text that is not ASCII is sent in
// base64, in the form that applications know.
func header(value string, values Values) string {
	pairs := make([]string, 0, 2*len(values))
	for name, text := range values {
		pairs = append(pairs, name, text)
	}
	filled := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return -1
		}
		return c
	}, strings.NewReplacer(pairs...).Replace(value))
	if len(filled) > maxFilled {
		filled = strings.ToValidUTF8(filled[:maxFilled], "")
	}
	if strings.ContainsFunc(filled, func(c rune) bool { return c >= unicode.MaxASCII }) {
		return "base64:" + base64.StdEncoding.EncodeToString([]byte(filled))
	}
	return filled
}

// fits reports whether a rule is for an application. agent is its User-Agent in small letters.
func fits(r coreapi.ClientRule, agent string) bool {
	if len(r.Agents) == 0 {
		return true
	}
	for _, word := range r.Agents {
		_, rest, found := strings.Cut(agent, strings.ToLower(word))
		if found && (r.Below == "" || below(rest, r.Below)) {
			return true
		}
	}
	return false
}

// below reports whether the version at the beginning of a text is lower than another one. A text
// without a version is not.
func below(text, than string) bool {
	text = strings.TrimLeft(text, "/ v")
	end := strings.IndexFunc(text, func(c rune) bool { return c != '.' && (c < '0' || c > '9') })
	if end < 0 {
		end = len(text)
	}
	have := strings.Trim(text[:min(end, maxVersionLen)], ".")
	if have == "" {
		return false
	}
	numbers := func(version string) (all []int) {
		for part := range strings.SplitSeq(version, ".") {
			n, _ := strconv.Atoi(part) // out of range is the greatest number
			all = append(all, n)
		}
		for len(all) > 0 && all[len(all)-1] == 0 { // 2.0 is 2
			all = all[:len(all)-1]
		}
		return all
	}
	return slices.Compare(numbers(have), numbers(than)) < 0
}

// Hidden reports whether a way is one of those that are left out.
func Hidden(way nodeconfig.Way, hide []string) bool {
	if len(hide) == 0 {
		return false
	}
	has := []string{way.Protocol.Protocol}
	if e := way.Endpoint; e != nil {
		has = append(has, e.Protocol, e.Stream.Network, e.Stream.Security)
		if e.Account.Flow != "" {
			has = append(has, "vision")
		}
		if len(e.Stream.Masks) > 0 {
			has = append(has, "masks")
		}
	}
	return slices.ContainsFunc(hide, func(words string) bool {
		for word := range strings.SplitSeq(words, "+") {
			if !slices.Contains(has, word) {
				return false
			}
		}
		return true
	})
}

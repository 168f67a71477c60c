package sublink

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v3"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/otherclients"
)

// site is a Core with a registered node, one user and a subscription.
type site struct {
	t       *testing.T
	store   *corestore.Store
	handler *Handler
	node    corestore.Node
	sub     corestore.Subscription
	logs    strings.Builder
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t}
	var err error
	s.store, err = corestore.Open(t.Context(), t.TempDir())
	s.must(err)
	t.Cleanup(func() { _ = s.store.Close() })
	s.node = s.addNode("fra1", "vless", `{"protocol":"vless","port":443,"settings":{"decryption":"none"},"streamSettings":{"network":"ws","wsSettings":{"path":"/w"}}}`)
	user, err := s.store.AddUser(t.Context(), "alice")
	s.must(err)
	s.sub, _, err = s.store.AddSubscription(t.Context(), user.ID)
	s.must(err)
	s.handler = New(s.store, Options{URL: "https://core.example", Mirrors: []string{"https://mirror.example/a"}, Title: "Köln VPN", SupportURL: "https://help.example"}, slog.New(slog.NewTextHandler(&s.logs, nil)))
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// addNode registers a node with one inbound.
func (s *site) addNode(name, protocol, config string) corestore.Node {
	s.t.Helper()
	node, code, err := s.store.AddNode(s.t.Context(), name, "", time.Hour)
	s.must(err)
	_, _, err = s.store.Register(s.t.Context(), wire.RegisterRequest{Code: code, Host: name + ".example", IP: "192.0.2.1"}, "")
	s.must(err)
	_, err = s.store.AddProtocol(s.t.Context(), corestore.Protocol{NodeID: node.ID, Protocol: protocol, Port: 443, Listen: "0.0.0.0", Config: json.RawMessage(config)})
	s.must(err)
	return node
}

// get asks for the subscription's link with more behind it. agent is the User-Agent.
func (s *site) get(more, agent string, header ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	return s.ask(s.store.LinkToken(s.sub)+more, agent, header...)
}

func (s *site) ask(rest, agent string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, corestore.LinkPrefix+rest, nil)
	r.Header.Set("User-Agent", agent)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// Each application gets its form, and a form can be asked for by name.
func TestForms(t *testing.T) {
	s := newSite(t)
	link := "vless://" + s.sub.UUID + "@fra1.example:443?encryption=none&path=%2Fw&security=none&type=ws#fra1-vless-1\n"
	if raw, err := base64.StdEncoding.DecodeString(s.get("", "v2rayNG/1.10.0").Body.String()); err != nil || string(raw) != link {
		t.Errorf("the list of links is %q, %v", raw, err)
	}
	if got := s.get("/plain", "").Body.String(); got != link {
		t.Errorf("the plain list is %q", got)
	}
	for _, agent := range []string{"clash-verge/v2.0", "FlClash/0.8", "mihomo/1.19", "Stash/2.4"} {
		var config struct {
			Proxies []map[string]any `yaml:"proxies"`
			Groups  []struct {
				Proxies []string `yaml:"proxies"`
			} `yaml:"proxy-groups"`
		}
		s.must(yaml.Unmarshal(s.get("", agent).Body.Bytes(), &config))
		if len(config.Proxies) != 1 || config.Proxies[0]["uuid"] != s.sub.UUID || len(config.Groups) != 2 || config.Groups[0].Proxies[1] != "fra1-vless-1" {
			t.Errorf("%s gets %+v", agent, config)
		}
	}
	for more, agent := range map[string]string{"": "SFA/1.12.0 (sing-box 1.12.0)", "/sing-box": "", "/xray": ""} {
		w := s.get(more, agent)
		var config map[string]any
		s.must(json.Unmarshal(w.Body.Bytes(), &config))
		if !strings.Contains(w.Body.String(), s.sub.UUID) || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
			t.Errorf("%s%s gets %s", agent, more, w.Body)
		}
	}
	if w := s.get("/windows", ""); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "mihomo, sing-box, xray") {
		t.Errorf("an unknown form gets %d %s", w.Code, w.Body)
	}
	if s.logs.Len() > 0 {
		t.Errorf("the log has %s", &s.logs)
	}
}

// Applications show the traffic, the limit and the end.
func TestHeaders(t *testing.T) {
	s := newSite(t)
	end := time.Now().Add(48 * time.Hour).Truncate(time.Second)
	var err error
	s.sub, _, err = s.store.EditSubscription(t.Context(), fmt.Sprint(s.sub.ID), func(sub *corestore.Subscription) error {
		sub.LimitBytes, sub.ExpiresAt = 10<<30, &end
		return nil
	})
	s.must(err)
	_, err = s.store.AddUsage(t.Context(), s.node.ID, "", []wire.UsageEntry{{UserID: s.sub.UserID, SubscriptionID: &s.sub.ID, NodeProtocolID: 1, BytesUp: 1000, BytesDown: 2000, RecordedAt: time.Now()}})
	s.must(err)
	header := s.get("", "").Header()
	for name, want := range map[string]string{
		"Subscription-Userinfo":   fmt.Sprintf("upload=1000; download=2000; total=%d; expire=%d", 10<<30, end.Unix()),
		"Profile-Title":           "base64:" + base64.StdEncoding.EncodeToString([]byte("Köln VPN")),
		"Profile-Update-Interval": "6", "Support-Url": "https://help.example", "Profile-Web-Page-Url": "https://core.example/sub/" + s.store.LinkToken(s.sub) + "/page", "Cache-Control": "no-store",
		"Announce":            encoded("Valid until " + end.UTC().Format(timeForm)),
		"Content-Disposition": "attachment; filename*=UTF-8''K%C3%B6ln%20VPN.txt",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// What a top-up adds is a part of the limit, wherever a user sees it.
func TestTopUpIsShown(t *testing.T) {
	s := newSite(t)
	var err error
	s.sub, _, err = s.store.EditSubscription(t.Context(), fmt.Sprint(s.sub.ID), func(sub *corestore.Subscription) error {
		sub.LimitBytes = 10 << 30
		return sub.TopUp(5 << 30)
	})
	s.must(err)
	if got, want := s.get("", "").Header().Get("Subscription-Userinfo"), fmt.Sprintf("upload=0; download=0; total=%d", 15<<30); got != want {
		t.Errorf("applications get %q, want %q", got, want)
	}
	if page := s.get("/page", "").Body.String(); !strings.Contains(page, "15.0 GiB") || strings.Contains(page, "10.0 GiB") {
		t.Errorf("the page does not say 15.0 GiB:\n%s", page)
	}
	values := s.handler.values(corestore.Linked{Subscription: s.sub})
	if values["{limit}"] != "15.0 GiB" || values["{left}"] != "15.0 GiB" {
		t.Errorf("headers of rules get %q", values)
	}
}

// A link of before a rotation, of a removed subscription, and a wrong one find nothing. A client
// that guesses has to wait, and no other one, not even from the same address.
func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		old := s.store.LinkToken(s.sub)
		var err error
		s.sub, _, err = s.store.EditSubscription(t.Context(), fmt.Sprint(s.sub.ID), func(sub *corestore.Subscription) error {
			sub.RotateLink()
			return nil
		})
		s.must(err)
		for _, token := range []string{old, "", "x", old + "A", strings.Repeat("A", 32), "../../etc"} {
			if w := s.ask(token, ""); w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), s.sub.UUID) {
				t.Errorf("%q gets %d %s", token, w.Code, w.Body)
			}
		}
		if w := s.get("", ""); w.Code != http.StatusOK {
			t.Fatalf("the link of now gets %d", w.Code)
		}
		for range maxMisses {
			s.ask("guess", "")
		}
		if w := s.ask("guess", ""); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("after guesses the address gets %d", w.Code)
		}
		if w := s.get("", ""); w.Code != http.StatusOK {
			t.Errorf("the link of another user behind the address gets %d", w.Code)
		}
		if !s.handler.guesses.allowed("[2001:db8::1]:1") {
			t.Error("another address has to wait")
		}
		time.Sleep(window)
		if w := s.ask("guess", ""); w.Code != http.StatusNotFound {
			t.Errorf("a minute later the address gets %d", w.Code)
		}
		_, err = s.store.RemoveSubscription(t.Context(), fmt.Sprint(s.sub.ID))
		s.must(err)
		if w := s.get("", ""); w.Code != http.StatusNotFound {
			t.Errorf("the link of a removed subscription gets %d", w.Code)
		}
		if strings.Contains(s.logs.String(), old) {
			t.Error("the log has a token")
		}
	})
}

// A subscription that lets nobody in has no links, and its page says why, in the language of the
// browser.
func TestPage(t *testing.T) {
	s := newSite(t)
	browser := "Mozilla/5.0 (X11; Linux x86_64)"
	w := s.get("", browser, "Accept", "text/html", "Accept-Language", "ru-RU,ru;q=0.9")
	for _, want := range []string{`lang="ru"`, "Активна", "https://core.example/sub/" + s.store.LinkToken(s.sub), "https://mirror.example/a/sub/" + s.store.LinkToken(s.sub), "vless://" + s.sub.UUID, "data:image/png;base64,", "sing-box://import-remote-profile?url=https%3A%2F%2Fcore.example"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("the page may load: %q", policy)
	}
	var err error
	s.sub, _, err = s.store.EnableSubscription(t.Context(), fmt.Sprint(s.sub.ID), false)
	s.must(err)
	if got := s.get("/plain", "").Body.String(); strings.Contains(got, "://") {
		t.Errorf("a disabled subscription has the links %s", got)
	}
	if got := s.get("", browser, "Accept", "text/html", "Accept-Language", "fa").Body.String(); !strings.Contains(got, `dir="rtl"`) || !strings.Contains(got, "غیرفعال") {
		t.Errorf("the page of a disabled subscription is %s", got)
	}
}

// A page draws as many QR codes as a browser and a camera can use, and shows every link as text.
func TestPictures(t *testing.T) {
	g := newGallery()
	if g.link("long", strings.Repeat("x", maxPictured+1)).Picture != "" {
		t.Error("a text that no camera can read is drawn")
	}
	drawn, largest := 0, 0
	for i := range 500 {
		text := fmt.Sprintf("%0*d", maxPictured, i)
		link := g.link("link", text)
		if again := g.link("in another language", text); again.Picture != link.Picture {
			t.Fatal("pages in two languages draw a link twice")
		}
		if link.Text == "" {
			t.Fatal("a link has no text")
		}
		if link.Picture != "" {
			drawn++
		}
		largest = max(largest, len(link.Picture))
	}
	if drawn != maxPictures || largest > 32<<10 {
		t.Errorf("%d pictures were drawn, of up to %d bytes", drawn, largest)
	}
}

// A real sing-box and a real mihomo take the whole configurations.
func TestWholeConfigurations(t *testing.T) {
	s := newSite(t)
	for _, c := range []struct {
		client     otherclients.Client
		form, file string
		args       []string
	}{
		{otherclients.SingBox, "sing-box", "config.json", []string{"check", "-c"}},
		{otherclients.Mihomo, "mihomo", "config.yaml", []string{"-t", "-f"}},
	} {
		t.Run(c.form, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), c.file)
			s.must(os.WriteFile(file, s.get("/"+c.form, "").Body.Bytes(), 0o600))
			if out, err := exec.Command(c.client.Path(t), append(c.args, file)...).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

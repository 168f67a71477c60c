package sublink

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
)

// Devices are counted by their x-hwid, and answered with the headers that applications know.
func TestDeviceLimit(t *testing.T) {
	s := newSite(t)
	limit := func(n int64) {
		t.Helper()
		var err error
		s.sub, _, err = s.store.EditSubscription(t.Context(), fmt.Sprint(s.sub.ID), func(sub *corestore.Subscription) error {
			sub.LimitDevices = n
			return nil
		})
		s.must(err)
	}
	names := []string{"X-Hwid-Active", "X-Hwid-Not-Supported", "X-Hwid-Max-Devices-Reached", "X-Hwid-Limit"}
	from := func(hwid string) *httptest.ResponseRecorder {
		t.Helper()
		return s.get("/plain", "Happ/3.1", "x-hwid", hwid, "x-device-os", "Android", "x-ver-os", "16", "x-device-model", "Pixel 9\x00", "Accept-Language", "en")
	}
	check := func(what string, w *httptest.ResponseRecorder, links bool, set ...string) {
		t.Helper()
		if has := strings.Contains(w.Body.String(), s.sub.UUID); w.Code != 200 || has != links {
			t.Errorf("%s: got %d, with links: %v, want %v: %s", what, w.Code, has, links, w.Body)
		}
		want := map[string]bool{}
		for _, name := range set {
			want[name] = true
		}
		for _, name := range names {
			if got := w.Header().Get(name); got == "true" != want[name] {
				t.Errorf("%s: %s is %q", what, name, got)
			}
		}
		if notice := w.Header().Get("Announce") != ""; notice == links {
			t.Errorf("%s: a notice is there: %v", what, notice)
		}
	}
	check("no limit, no device", from(""), true)
	check("no limit", from("a"), true)
	limit(2)
	check("no device", from(""), false, names[0], names[1], names[3])
	check("a device that can't be kept", from(strings.Repeat("x", maxHWID+1)), false, names[0], names[1], names[3])
	check("the first device", from("b"), true, names[0])
	check("the second one", from("c"), true, names[0])
	check("the second one again", from("c"), true, names[0])
	check("one too many", from("d"), false, names[0], names[2], names[3])
	limit(1)
	check("a known one, after the limit is lowered", from("c"), true, names[0])
	if page := s.get("/page", "").Body.String(); strings.Contains(page, s.sub.UUID) {
		t.Error("the page has links that every device could use")
	}
	devices, err := s.store.Devices(t.Context(), s.sub.ID)
	s.must(err)
	if len(devices) != 2 || devices[0].OS != "Android" || devices[0].OSVersion != "16" || devices[0].Model != "Pixel 9" || devices[0].UserAgent != "Happ/3.1" {
		t.Fatalf("the devices are %+v", devices)
	}
	for _, d := range devices {
		s.must(s.store.RemoveDevice(t.Context(), d.ID))
	}
	check("another one, after those were removed", from("d"), true, names[0])
}

// A subscription that is near its limit or its end, or over it, says so before its links.
func TestNotices(t *testing.T) {
	now := time.Now()
	_, text := wordsFor("en")
	for name, c := range map[string]struct {
		sub  corestore.Subscription
		want string
	}{
		"nothing":        {corestore.Subscription{Status: "active"}, ""},
		"far from both":  {corestore.Subscription{Status: "active", ExpiresAt: new(now.Add(100 * time.Hour)), Terms: corestore.Terms{LimitBytes: 1000}, UsedBytes: 800}, ""},
		"near the end":   {corestore.Subscription{Status: "active", ExpiresAt: new(time.Date(2030, 1, 2, 3, 4, 0, 0, time.UTC))}, ""},
		"near the limit": {corestore.Subscription{Status: "active", Terms: corestore.Terms{LimitBytes: 1000}, UsedBytes: 920}, "Traffic: left 80 B"},
		"topped up":      {corestore.Subscription{Status: "active", Terms: corestore.Terms{LimitBytes: 1000}, ExtraBytes: 500, UsedBytes: 1100}, ""},
		"near its extra": {corestore.Subscription{Status: "active", Terms: corestore.Terms{LimitBytes: 1000}, ExtraBytes: 500, UsedBytes: 1360}, "Traffic: left 140 B"},
		"over the limit": {corestore.Subscription{Status: "limited", Terms: corestore.Terms{LimitBytes: 1000}, UsedBytes: 5000}, "The traffic is used up"},
		"disabled":       {corestore.Subscription{Status: "disabled"}, "Disabled"},
	} {
		at := now
		if name == "near the end" {
			at, c.want = c.sub.ExpiresAt.Add(-time.Hour), "Valid until 2030-01-02 03:04 UTC"
		}
		if got := text.notice(c.sub, at); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	s := newSite(t)
	var err error
	s.sub, _, err = s.store.EnableSubscription(t.Context(), fmt.Sprint(s.sub.ID), false)
	s.must(err)
	w := s.get("/plain", "")
	if want := encoded("Disabled"); w.Header().Get("Announce") != want || w.Body.String() != "#announce: "+want+"\n" {
		t.Errorf("got %q, %q, want %q", w.Header().Get("Announce"), w.Body, want)
	}
}

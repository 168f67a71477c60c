package telemt

import (
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fakeTelemt counts as telemt does, and loses what it loses.
type fakeTelemt struct {
	now, began time.Time
	users      map[string]octets
}

func (f *fakeTelemt) sample() sample {
	uptime := f.now.Sub(f.began).Round(100 * time.Millisecond)
	return sample{at: f.now, uptime: uptime, users: maps.Clone(f.users)}
}

// Whatever telemt forgets in between, what was read is counted once.
func TestMeterNeitherLosesNorDoubles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		telemt := &fakeTelemt{now: time.Now(), began: time.Now(), users: map[string]octets{}}
		var m meter
		counted, want := map[string]octets{}, map[string]octets{}
		unread := map[string]octets{}
		add := func(to map[string]octets, user string, up, down uint64) {
			o := to[user]
			to[user] = octets{o.up + up, o.down + down}
		}
		read := func() {
			for user, gained := range m.read(telemt.sample()) {
				add(counted, user, gained.up, gained.down)
			}
			for user, o := range unread {
				add(want, user, o.up, o.down)
			}
			clear(unread)
		}
		user := rapid.SampledFrom([]string{"a", "b", "c"})
		t.Repeat(map[string]func(*rapid.T){
			"traffic": func(t *rapid.T) {
				name, up, down := user.Draw(t, "user"), rapid.Uint64Range(0, 1<<30).Draw(t, "up"), rapid.Uint64Range(0, 1<<30).Draw(t, "down")
				add(telemt.users, name, up, down)
				add(unread, name, up, down)
			},
			"time": func(t *rapid.T) {
				telemt.now = telemt.now.Add(time.Duration(rapid.IntRange(1, 600_000).Draw(t, "ms")) * time.Millisecond)
			},
			"read": func(*rapid.T) { read() },
			"new generation of ours": func(*rapid.T) { // read before, told after
				read()
				telemt.began, telemt.users = telemt.now, map[string]octets{}
				m.restart()
			},
			"new generation of somebody's": func(*rapid.T) { // what was not read is gone
				telemt.now = telemt.now.Add(2 * roundedUptime)
				telemt.began, telemt.users = telemt.now, map[string]octets{}
				clear(unread)
			},
			"a slow answer": func(t *rapid.T) { // rendered at once, and asked for before
				s := telemt.sample()
				telemt.now = telemt.now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
				for user, gained := range m.read(s) {
					add(counted, user, gained.up, gained.down)
				}
				for user, o := range unread {
					add(want, user, o.up, o.down)
				}
				clear(unread)
			},
			"a day without a session": func(t *rapid.T) {
				read()
				telemt.now = telemt.now.Add(25 * time.Hour)
				delete(telemt.users, user.Draw(t, "user"))
				read() // at the pace of a read every 5 s, one sees it gone
			},
		})
		read()
		for name, w := range want {
			if w != (octets{}) && counted[name] != w {
				t.Fatalf("user %s: counted %v, want %v", name, counted[name], w)
			}
		}
	})
}

// Both spellings of the names are read.
func TestParseMetrics(t *testing.T) {
	const text = `# HELP telemt_uptime_seconds Uptime
# TYPE telemt_uptime_seconds gauge
telemt_uptime_seconds 12.5
# TYPE telemt_user_octets_from_client counter
telemt_user_octets_from_client{user="a"} 100
telemt_user_octets_from_client{user="b"} 9007199254740993
# TYPE telemt_user_octets_to_client counter
telemt_user_octets_to_client{user="a"} 200
# TYPE telemt_telemetry_user_series_users gauge
telemt_telemetry_user_series_users{family="stats",status="suppressed"} 3
telemt_telemetry_user_series_users{family="unique_ip",status="suppressed"} 9
`
	later := strings.NewReplacer("from_client", "from_client_total", "to_client", "to_client_total").Replace(text)
	for name, text := range map[string]string{"3.4": text, "3.5": later} {
		t.Run(name, func(t *testing.T) {
			s, err := parseMetrics(strings.NewReader(text), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if s.uptime != 12500*time.Millisecond || s.users["a"] != (octets{100, 200}) || s.suppressed != 3 || len(s.users) != 2 {
				t.Errorf("read %+v", s)
			}
		})
	}
	if _, err := parseMetrics(strings.NewReader("<html>"), time.Now()); err == nil {
		t.Error("a page that is no metrics was read")
	}
}

func FuzzParseMetrics(f *testing.F) {
	f.Add("telemt_uptime_seconds 1\ntelemt_user_octets_from_client{user=\"a\"} 1\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = parseMetrics(strings.NewReader(text), time.Now()) })
}

func TestOutputHidesSecrets(t *testing.T) {
	o := newOutput(wanted{
		upstreams: []Upstream{{Type: "socks5", Password: "pass-word"}, {Type: "shadowsocks", URL: "ss://abc@host:1"}},
		advanced:  map[string]any{"upstreams": []any{map[string]any{"type": "socks5", "password": "of-advanced"}}},
	})
	for _, line := range []string{"socks5 of-advanced", "link tg://proxy?secret=ee" + secret + "6f6e65", "upstream pass-word", "url ss://abc@host:1 failed"} {
		said := o.add(line)
		for _, s := range []string{secret, "pass-word", "ss://abc", "of-advanced"} {
			if strings.Contains(said, s) {
				t.Errorf("%q tells a secret", said)
			}
		}
	}
}

func TestFolderNamesStayInside(t *testing.T) {
	for tag, want := range map[string]string{"mtproto-7": "/s/mtproto-7", "../../etc": "/s/%2e.%2f..%2fetc", "a/b": "/s/a%2fb", "..": "/s/%2e.", "a!!": "/s/a%21%21", "a!21": "/s/a%2121"} {
		if got := string(folderOf("/s", tag)); got != want {
			t.Errorf("folder of %q is %q, want %q", tag, got, want)
		}
	}
	f := folder(t.TempDir())
	if err := f.make(); err != nil {
		t.Fatal(err)
	}
	if err := f.write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(f.config()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the configuration is %v, %v; want it readable by its owner alone", info.Mode(), err)
	}
}

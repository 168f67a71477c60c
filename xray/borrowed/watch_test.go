package borrowed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/xray/state"
)

func reality(target string) state.Inbound {
	return state.Inbound{Tag: "in-1", Config: json.RawMessage(fmt.Sprintf(`{"streamSettings":{"security":"reality","realitySettings":{"target":%s,"serverNames":["","site.test"],"xver":1}}}`, target))}.Decoded()
}

func TestSiteOfAnInbound(t *testing.T) {
	for _, c := range []struct{ target, network, address string }{
		{`"site.test:443"`, "tcp", "site.test:443"},
		{`443`, "tcp", "localhost:443"},
		{`"8443"`, "tcp", "localhost:8443"},
		{`"/run/site"`, "unix", "/run/site"},
		{`"@site"`, "unix", "@site"},
		{`"@@site"`, "", ""}, // padded for HAProxy: nobody else dials such a name
		{`"site.test"`, "", ""},
	} {
		site, borrows := Of(reality(c.target))
		if site.Network != c.network || site.Address != c.address || borrows != (c.address != "") {
			t.Errorf("%s: %+v, %v", c.target, site, borrows)
		}
		if borrows && (len(site.Names) != 1 || site.Names[0] != "site.test" || site.Xver != 1) {
			t.Errorf("%s: %+v", c.target, site)
		}
	}
	if _, borrows := Of(state.Inbound{Config: json.RawMessage(`{"streamSettings":{"security":"tls"}}`)}.Decoded()); borrows {
		t.Error("an inbound with TLS borrows a site")
	}
}

// A site is looked at when it is wanted, every minute while something is wrong, and every ten
// minutes otherwise. Its warning ends with its cause, and with its inbound.
func TestSitesAreLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		var broken atomic.Bool
		broken.Store(true)
		w := NewWatch(func(context.Context, Site) error {
			looks.Add(1)
			if broken.Load() {
				return errors.New("it is not there")
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.Run(ctx)
		wanted := state.State{Inbounds: map[string]state.Inbound{"in-1": reality(`"site.test:443"`)}}
		w.Want(wanted)
		synctest.Wait()
		<-w.Changed()
		if got := w.Warnings(); len(got) != 1 || !strings.Contains(got[0], `inbound "in-1": it borrows the site site.test:443: it is not there`) {
			t.Fatalf("warnings %q", got)
		}
		w.Want(wanted) // nothing is new
		synctest.Wait()
		if looks.Load() != 1 {
			t.Errorf("%d looks at once", looks.Load())
		}
		broken.Store(false)
		time.Sleep(badFor + time.Second)
		synctest.Wait()
		if got := w.Warnings(); len(got) > 0 || looks.Load() != 2 {
			t.Errorf("after %d looks: %q", looks.Load(), got)
		}
		broken.Store(true)
		time.Sleep(goodFor - 2*time.Second)
		synctest.Wait()
		if looks.Load() != 2 {
			t.Errorf("a good site was looked at %d times", looks.Load())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := w.Warnings(); len(got) != 1 {
			t.Errorf("after %d looks: %q", looks.Load(), got)
		}
		w.Want(state.State{})
		if got := w.Warnings(); len(got) > 0 {
			t.Errorf("an inbound that is gone: %q", got)
		}
	})
}

// A site that does not answer holds up neither Want nor Warnings, and is given up.
func TestASilentSiteHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWatch(func(ctx context.Context, _ Site) error {
			<-ctx.Done()
			return ctx.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.Run(ctx)
		w.Want(state.State{Inbounds: map[string]state.Inbound{"in-1": reality(`"site.test:443"`)}})
		synctest.Wait()
		if got := w.Warnings(); len(got) > 0 {
			t.Errorf("before the time is over: %q", got)
		}
		time.Sleep(probeTimeout + time.Second)
		synctest.Wait()
		if got := w.Warnings(); len(got) != 1 {
			t.Errorf("after the time: %q", got)
		}
	})
}

package xray_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xtls/xray-core/common/geodata"
	"google.golang.org/protobuf/proto"

	"nodeagent/internal/testfiles"
	"nodeagent/xray"
)

// writeGeoIP puts a geoip.dat in place whose country TEST has the network.
func writeGeoIP(t *testing.T, dir, network string) {
	t.Helper()
	_, cidr, err := net.ParseCIDR(network)
	if err != nil {
		t.Fatal(err)
	}
	bits, _ := cidr.Mask.Size()
	data, err := proto.Marshal(&geodata.GeoIPList{Entry: []*geodata.GeoIP{{
		Code: "TEST", Cidr: []*geodata.CIDR{{Ip: cidr.IP.To4(), Prefix: uint32(bits)}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	testfiles.Replace(t, filepath.Join(dir, "geoip.dat"), data)
}

// A new geo file makes new rules, a broken one is told and the rules stay.
func TestGeoFilesAreWatched(t *testing.T) {
	r := newRig(t)
	writeGeoIP(t, r.assets, "192.0.2.0/24")
	r.apply(r.state(`,"outbounds":[{"tag":"direct","protocol":"freedom"},{"tag":"block","protocol":"blackhole"}],
		"routing":{"rules":[{"ip":["geoip:test"],"outboundTag":"block"}]}`, bobID))
	conn := r.dial(bobID)
	writeGeoIP(t, r.assets, "127.0.0.0/8")
	r.within(promised, "the new rule holds", func() bool { _, err := r.tryDial(bobID); return err != nil })
	if err := use(conn); err != nil {
		t.Errorf("a connection of before the change: %v", err)
	}
	testfiles.Replace(t, filepath.Join(r.assets, "geoip.dat"), []byte("no geo file"))
	r.within(promised, "the broken file is told", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.ContainsFunc(r.failed, func(f xray.Failure) bool { return strings.Contains(f.Message, "geoip.dat") })
	})
	if _, err := r.tryDial(bobID); err == nil {
		t.Error("the rule of the last good file does not hold any more")
	}
	writeGeoIP(t, r.assets, "192.0.2.0/24")
	r.within(promised, "the good file is taken", func() bool { _, err := r.tryDial(bobID); return err == nil })
}

// A rule that names a file which is not there is refused, with the file's name.
func TestMissingGeoFileIsNamed(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", bobID))
	conn := r.dial(bobID)
	err := r.engine.Apply(t.Context(), r.state(`,"routing":{"rules":[{"domain":["geosite:test"],"outboundTag":"direct"}]}`, bobID))
	if err == nil || !strings.Contains(err.Error(), "geosite.dat") {
		t.Errorf("got %v", err)
	}
	if err := use(conn); err != nil {
		t.Error(err)
	}
}

// A folder of geo files that took the place of another one, and a link to a file elsewhere, are read by
// a new worker: the one that ran is confined to the folders that were there when it started.
func TestGeoFilesElsewhere(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", bobID))
	r.confinedBy()
	blocks := func(what string, pid int) int {
		t.Helper()
		r.apply(r.state("", bobID))
		r.apply(r.state(`,"outbounds":[{"tag":"direct","protocol":"freedom"},{"tag":"block","protocol":"blackhole"}],
			"routing":{"rules":[{"ip":["geoip:test"],"outboundTag":"block"}]}`, bobID))
		if _, err := r.tryDial(bobID); err == nil {
			t.Errorf("%s: the rule does not hold", what)
		}
		now := r.engine.Status().PID
		if now == pid {
			t.Errorf("%s: no new worker runs", what)
		}
		return now
	}
	if err := os.Rename(r.assets, r.assets+"-before"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.assets, 0o755); err != nil {
		t.Fatal(err)
	}
	writeGeoIP(t, r.assets, "127.0.0.0/8")
	pid := blocks("another folder", r.engine.Status().PID)
	elsewhere := t.TempDir()
	writeGeoIP(t, elsewhere, "127.0.0.0/8")
	if err := os.Remove(filepath.Join(r.assets, "geoip.dat")); err != nil {
		t.Fatal(err)
	}
	testfiles.Link(t, filepath.Join(elsewhere, "geoip.dat"), filepath.Join(r.assets, "geoip.dat"))
	blocks("a link", pid)
}

package wireguard

import (
	"slices"
	"strings"
	"testing"

	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/features/outbound"
	"github.com/xtls/xray-core/infra/conf/serial"
	_ "github.com/xtls/xray-core/main/distro/all"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/proxy/wireguard"
	"golang.zx2c4.com/wireguard/tun"
)

// made returns the handler of an outbound that xray-core has made.
func made(t *testing.T, text string) outbound.Handler {
	t.Helper()
	config, err := serial.LoadJSONConfig(strings.NewReader(`{"outbounds":[` + text + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	instance, err := core.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = instance.Close() })
	return instance.GetFeature(outbound.ManagerType()).(outbound.Manager).GetDefaultHandler()
}

const ofWireGuard = `{"protocol":"wireguard","settings":{"secretKey":"QGVyQMrPGhqZYkPbJtTSpJ5SbRkYvQXMoo+KtbJxRHA=","address":["10.9.0.3/32"],"noKernelTun":true,
	"peers":[{"endpoint":"127.0.0.1:1","publicKey":"QGVyQMrPGhqZYkPbJtTSpJ5SbRkYvQXMoo+KtbJxRHA="}]}}`

// events are what the interface of an outbound tells its device until it is closed.
func events(t *testing.T, handler outbound.Handler) []tun.Event {
	t.Helper()
	device, err := deviceOf(handler.(proxy.GetOutbound).GetOutbound().(*wireguard.Handler))
	if err != nil {
		t.Fatal(err)
	}
	told := (*device).Events()
	if err := (*device).Close(); err != nil {
		t.Fatal(err)
	}
	*device = nil // the instance closes it no second time
	var all []tun.Event
	for event := range told {
		all = append(all, event)
	}
	return all
}

func TestDeviceHearsOfNoUp(t *testing.T) {
	handler := made(t, ofWireGuard)
	if err := Guard(handler); err != nil {
		t.Fatal(err)
	}
	if all := events(t, handler); len(all) > 0 {
		t.Errorf("the device hears %v", all)
	}
	// Without Guard the device gets the event at once, before it can be brought up.
	if all := events(t, made(t, ofWireGuard)); !slices.Equal(all, []tun.Event{tun.EventUp}) {
		t.Errorf("xray-core's interface says %v by itself: Guard may be needed no more", all)
	}
}

func TestOtherOutboundsStayAsTheyAre(t *testing.T) {
	if err := Guard(made(t, `{"protocol":"freedom"}`)); err != nil {
		t.Error(err)
	}
}

type talkative struct {
	tun.Device
	says chan tun.Event
}

func (d talkative) Events() <-chan tun.Event { return d.says }

func TestChangesOfTheMTUPass(t *testing.T) {
	says := make(chan tun.Event, 3)
	says <- tun.EventUp
	says <- tun.EventDown | tun.EventMTUUpdate
	says <- tun.EventDown
	close(says)
	var heard []tun.Event
	for event := range (quiet{talkative{says: says}}).Events() {
		heard = append(heard, event)
	}
	if !slices.Equal(heard, []tun.Event{tun.EventMTUUpdate}) {
		t.Errorf("the device hears %v", heard)
	}
}

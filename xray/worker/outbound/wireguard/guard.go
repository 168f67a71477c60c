package wireguard

import (
	"fmt"
	"reflect"

	"github.com/xtls/xray-core/features/outbound"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/proxy/wireguard"
	"golang.zx2c4.com/wireguard/tun"
)

// Guard gives a WireGuard outbound an interface that does not say when it is up or down. It
// leaves every other outbound as it is. It is called before the outbound's first stream. It
// fails where xray-core's outbound no longer has the member that it changes.
func Guard(handler outbound.Handler) error {
	holder, ok := handler.(proxy.GetOutbound)
	if !ok {
		return nil
	}
	client, ok := holder.GetOutbound().(*wireguard.Handler)
	if !ok {
		return nil
	}
	device, err := deviceOf(client)
	if err != nil {
		return err
	}
	*device = quiet{*device}
	return nil
}

// deviceOf points to the interface that the outbound gives its device.
func deviceOf(client *wireguard.Handler) (*tun.Device, error) {
	member := reflect.ValueOf(client).Elem().FieldByName("tun")
	if !member.IsValid() || member.Type() != reflect.TypeFor[tun.Device]() {
		return nil, fmt.Errorf("xray-core's %T has no tun that is a tun.Device any more", client)
	}
	return (*tun.Device)(member.Addr().UnsafePointer()), nil
}

// quiet is an interface that tells its device about changes of its MTU alone.
type quiet struct{ tun.Device }

// Events implements tun.Device. A device calls it once, and reads until the interface is
// closed.
func (q quiet) Events() <-chan tun.Event {
	passed := make(chan tun.Event)
	go func() {
		defer close(passed)
		for event := range q.Device.Events() {
			if event&tun.EventMTUUpdate != 0 {
				passed <- tun.EventMTUUpdate
			}
		}
	}()
	return passed
}

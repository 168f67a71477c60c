package adminapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// deviceIn names a device in a path.
type deviceIn struct {
	ID int64 `path:"device" doc:"Id of the device."`
}

func registerDevices(a api) {
	s := a.server
	read(a, operation{id: "device-list", method: http.MethodGet, path: "/subscriptions/{subscription}/devices", noun: "devices", summary: "List the devices that have fetched a subscription's own link", role: coreapi.Support},
		func(ctx context.Context, in *subscriptionIn) ([]corestore.Device, error) {
			sub, err := s.store.Subscription(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return s.store.Devices(ctx, sub.ID)
		})
	read(a, operation{id: "device-edit", method: http.MethodPatch, path: "/devices/{device}", noun: "devices", summary: "Give a device a name", role: coreapi.Support},
		func(ctx context.Context, in *struct {
			ID   int64 `path:"device" doc:"Id of the device."`
			Body coreapi.DeviceEdit
		},
		) (d corestore.Device, err error) {
			if name := in.Body.Name; name != nil && (len(*name) > maxTag || strings.ContainsFunc(*name, unicode.IsControl)) {
				return d, badInput{fmt.Errorf("the name has %d bytes, or control characters: want at most %d bytes without", len(*name), maxTag)}
			}
			return s.store.EditDevice(ctx, in.ID, func(d *corestore.Device) { set(&d.Name, in.Body.Name) })
		})
	read(a, operation{id: "device-remove", method: http.MethodDelete, path: "/devices/{device}", noun: "devices", summary: "Forget a device, so that another one can take its place", role: coreapi.Support},
		func(ctx context.Context, in *deviceIn) (coreapi.Removed, error) {
			return coreapi.Removed{Removed: fmt.Sprint(in.ID)}, s.store.RemoveDevice(ctx, in.ID)
		})
}

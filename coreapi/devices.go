package coreapi

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// Fetched is when a subscription's own link was fetched, and by which application.
type Fetched struct {
	At        time.Time `json:"at" doc:"UTC"`
	UserAgent string    `json:"userAgent" doc:"What the application calls itself."`
}

// Device is one that has fetched a subscription's own link and has said which one it is. All texts
// but Name are the application's words.
type Device struct {
	ID             int64     `json:"id"`
	SubscriptionID int64     `json:"subscriptionId"`
	Name           string    `json:"name" doc:"An operator's."`
	HWID           string    `json:"hwid"`
	OS             string    `json:"os"`
	OSVersion      string    `json:"osVersion"`
	Model          string    `json:"model"`
	UserAgent      string    `json:"userAgent"`
	FirstSeenAt    time.Time `json:"firstSeenAt" doc:"UTC"`
	LastSeenAt     time.Time `json:"lastSeenAt" doc:"UTC"`
}

// DeviceEdit says what of a device is set: the members that are there.
type DeviceEdit struct {
	Name *string `json:"name,omitempty"`
}

// Devices returns the devices of a subscription, the newest word first.
func (c *Client) Devices(ctx context.Context, idOrUUID string) ([]Device, error) {
	return call[[]Device](ctx, c, http.MethodGet, "/subscriptions/"+segment(idOrUUID)+"/devices", nil, nil)
}

// EditDevice changes the name of a device.
func (c *Client) EditDevice(ctx context.Context, id int64, edit DeviceEdit) (Device, error) {
	return call[Device](ctx, c, http.MethodPatch, "/devices/"+strconv.FormatInt(id, 10), nil, edit)
}

// RemoveDevice forgets a device, so that another one can take its place.
func (c *Client) RemoveDevice(ctx context.Context, id int64) (Removed, error) {
	return call[Removed](ctx, c, http.MethodDelete, "/devices/"+strconv.FormatInt(id, 10), nil, nil)
}

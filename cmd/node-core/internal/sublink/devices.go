package sublink

import (
	"context"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"nodeagent/cmd/node-core/internal/corestore"
)

// Bounds of what applications say of themselves, in bytes.
const (
	maxHWID  = 128
	maxWords = 200
)

// deviceOf returns what an application says of its device. HWID is empty where it says none, or none
// that can be kept: too long, or with characters that are not printable ASCII.
func deviceOf(r *http.Request) corestore.Device {
	hwid := strings.TrimSpace(r.Header.Get("x-hwid"))
	if len(hwid) > maxHWID || strings.ContainsFunc(hwid, func(c rune) bool { return c <= ' ' || c >= unicode.MaxASCII }) {
		hwid = ""
	}
	return corestore.Device{
		HWID: hwid, OS: printable(r.Header.Get("x-device-os")), OSVersion: printable(r.Header.Get("x-ver-os")),
		Model: printable(r.Header.Get("x-device-model")), UserAgent: printable(r.UserAgent()),
	}
}

// printable returns the beginning of a text, of printable characters alone.
func printable(text string) string {
	text = strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, text)
	for len(text) > maxWords {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return strings.TrimSpace(text)
}

// admit keeps who has fetched, and reports whether the device may have the links. A subscription with
// a limit of devices is answered as other panels do (remnawave, subscription.service.ts,
// checkHwidDeviceLimit), whose headers applications know:
//
//	x-hwid-active               there is a limit
//	x-hwid-not-supported        the application has sent no x-hwid
//	x-hwid-max-devices-reached  there are as many devices as may be
//	x-hwid-limit                the links are withheld, for one of both reasons
func (h *Handler) admit(ctx context.Context, header http.Header, r *http.Request, sub corestore.Subscription) (bool, error) {
	device, now := deviceOf(r), time.Now()
	if sub.LimitDevices > 0 {
		header.Set("X-Hwid-Active", "true")
	}
	switch {
	case device.HWID != "":
		admitted, err := h.store.AdmitDevice(ctx, sub, device, now)
		if err != nil {
			return false, err
		}
		if !admitted {
			header.Set("X-Hwid-Max-Devices-Reached", "true")
			header.Set("X-Hwid-Limit", "true")
			return false, nil
		}
	case sub.LimitDevices > 0:
		header.Set("X-Hwid-Not-Supported", "true")
		header.Set("X-Hwid-Limit", "true")
		return false, nil
	}
	h.store.NoteFetch(sub.ID, device.UserAgent, now)
	return true, nil
}

package corestore

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Devices that come at once do not get past the limit, also from two connections.
func TestDevicesThatComeAtOnce(t *testing.T) {
	s := openStore(t)
	sub := aSubscription(t, s, 3)
	var admitted atomic.Int64
	var all sync.WaitGroup
	for n := range 20 {
		all.Go(func() {
			ok, err := s.AdmitDevice(t.Context(), sub, Device{HWID: fmt.Sprint("device-", n)}, time.Now())
			if err != nil {
				t.Error(err)
			}
			if ok {
				admitted.Add(1)
			}
		})
	}
	all.Wait()
	devices, err := s.Devices(t.Context(), sub.ID)
	if err != nil || admitted.Load() != 3 || len(devices) != 3 {
		t.Errorf("%d are admitted and %d are kept, %v; want 3", admitted.Load(), len(devices), err)
	}
}

// A person with the link of a subscription without a limit can make up devices, and no more of them
// are kept than maxFreeDevices. When a link was fetched is stored with them, the newest last.
func TestNotesOfFetches(t *testing.T) {
	s := openStore(t)
	sub := aSubscription(t, s, 0)
	start := time.UnixMilli(1_700_000_000_000).UTC()
	for round := range 3 {
		for n := range 2 * maxFreeDevices {
			now := start.Add(time.Duration(round*1000+n) * time.Second)
			if ok, err := s.AdmitDevice(t.Context(), sub, Device{HWID: fmt.Sprint(round, "-", n), Model: "phone"}, now); err != nil || !ok {
				t.Fatal(ok, err)
			}
			s.NoteFetch(sub.ID, fmt.Sprint("app/", round, ".", n), now)
		}
		s.NoteFetch(sub.ID+1000, "of nobody", start)
		if err := s.flushNotes(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	last, count, err := s.LastFetch(t.Context(), sub.ID)
	if err != nil || count != maxFreeDevices || last == nil || last.UserAgent != fmt.Sprint("app/2.", 2*maxFreeDevices-1) || !last.At.Equal(start.Add((2000+2*maxFreeDevices-1)*time.Second)) {
		t.Fatalf("got %+v, %d devices, %v", last, count, err)
	}
	devices, err := s.Devices(t.Context(), sub.ID)
	if err != nil || devices[0].HWID != fmt.Sprint("2-", maxFreeDevices-1) || devices[len(devices)-1].HWID != "2-0" {
		t.Errorf("the newest is %+v, the oldest %+v, %v", devices[0], devices[len(devices)-1], err)
	}
	if d, err := s.EditDevice(t.Context(), devices[0].ID, func(d *Device) { d.Name = "tablet" }); err != nil || d.Name != "tablet" {
		t.Error(d, err)
	}
	// An older word does not replace a newer one, and the name stays.
	s.NoteFetch(sub.ID, "old", start)
	s.noteDevice(Device{SubscriptionID: sub.ID, HWID: devices[0].HWID, Model: "other", LastSeenAt: start})
	if err := s.closeNotes(); err != nil {
		t.Fatal(err)
	}
	again, err := s.Devices(t.Context(), sub.ID)
	if err != nil || again[0].Name != "tablet" || !again[0].LastSeenAt.Equal(devices[0].LastSeenAt) {
		t.Errorf("got %+v, %v", again[0], err)
	}
	if after, _, err := s.LastFetch(t.Context(), sub.ID); err != nil || *after != *last {
		t.Errorf("got %+v, %v, want %+v", after, err, last)
	}
}

func aSubscription(t *testing.T, s *Store, devices int64) Subscription {
	t.Helper()
	user, err := s.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	sub, _, err := s.InsertSubscription(t.Context(), Subscription{UserID: user.ID, Terms: Terms{LimitDevices: devices}})
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

package corestore

import (
	"context"
	"sync"
	"time"

	"nodeagent/coreapi"
)

const (
	// notesEvery is how often fetches of links are stored.
	notesEvery = 5 * time.Second
	// maxNotes bounds the memory of what waits: where more wait, the further ones are not kept. That
	// many fetches in notesEvery are more than a Core answers.
	maxNotes = 20_000
)

// linkNotes has what fetches of links leave to be stored. It is stored together, since a transaction
// that waits for the disk for each fetch would cost more than the fetch. A crash loses the last seconds.
//
// mu is held while the maps are read or changed, and never while the database is asked. storing is
// held while they are stored, so that close waits for it.
type linkNotes struct {
	mu      sync.Mutex
	fetches map[int64]coreapi.Fetched // by subscription
	devices map[deviceKey]Device
	ofOne   map[int64]int // how many of devices a subscription has
	timer   *time.Timer   // nil while nothing waits
	closed  bool
	storing sync.Mutex
}

// NoteFetch keeps that a subscription's own link was fetched, to be stored within notesEvery.
func (s *Store) NoteFetch(subscriptionID int64, userAgent string, now time.Time) {
	s.note(func(n *linkNotes) {
		if _, is := n.fetches[subscriptionID]; is || len(n.fetches) < maxNotes {
			n.fetches[subscriptionID] = coreapi.Fetched{At: now, UserAgent: userAgent}
		}
	})
}

func (s *Store) noteDevice(d Device) {
	s.note(func(n *linkNotes) {
		key := deviceKey{d.SubscriptionID, d.HWID}
		if _, is := n.devices[key]; !is {
			if len(n.devices) >= maxNotes || n.ofOne[d.SubscriptionID] >= maxFreeDevices {
				return
			}
			n.ofOne[d.SubscriptionID]++
		}
		n.devices[key] = d
	})
}

func (s *Store) note(keep func(*linkNotes)) {
	n := &s.notes
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	if n.fetches == nil {
		n.fetches, n.devices, n.ofOne = map[int64]coreapi.Fetched{}, map[deviceKey]Device{}, map[int64]int{}
	}
	keep(n)
	if n.timer == nil {
		n.timer = time.AfterFunc(notesEvery, func() {
			// A note that could not be stored is of no use later: the next fetch brings another.
			_ = s.flushNotes(context.Background())
		})
	}
}

func (s *Store) flushNotes(ctx context.Context) error {
	n := &s.notes
	n.storing.Lock()
	defer n.storing.Unlock()
	n.mu.Lock()
	fetches, devices := n.fetches, n.devices
	n.fetches, n.devices, n.ofOne, n.timer = nil, nil, nil, nil
	n.mu.Unlock()
	return s.storeNotes(ctx, fetches, devices)
}

// closeNotes stores what waits, and takes nothing more.
func (s *Store) closeNotes() error {
	s.notes.mu.Lock()
	s.notes.closed = true
	if s.notes.timer != nil {
		s.notes.timer.Stop()
	}
	s.notes.mu.Unlock()
	return s.flushNotes(context.Background())
}

package corestore

import (
	"fmt"
	"time"

	"nodeagent/cmd/node-core/internal/periods"
)

// Reset begins the period's count of bytes anew.
func (s *Subscription) Reset(now time.Time) {
	s.PeriodStart, s.periodUp, s.periodDown = new(now.UTC()), s.BytesUp, s.BytesDown
	s.UsedBytes, s.usedRest, s.ExtraBytes = 0, 0, 0
}

// TopUp adds bytes to what this period has.
func (s *Subscription) TopUp(bytes int64) error {
	switch {
	case s.LimitBytes == 0:
		return fmt.Errorf("subscription %d has no limit of bytes, so there is nothing to top up", s.ID)
	case bytes <= 0:
		return fmt.Errorf("can't top up by %d bytes: want 1 or more", bytes)
	}
	s.ExtraBytes = added(s.ExtraBytes, bytes)
	return nil
}

// Extend moves the end by a number of seconds: from now on where it is over, and from the end
// where it is not. A life that has not begun becomes longer.
func (s *Subscription) Extend(now time.Time, seconds int64) error {
	if seconds <= 0 || seconds > maxExtension {
		return fmt.Errorf("can't extend by %d seconds: want 1 to %d", seconds, int64(maxExtension))
	}
	while := time.Duration(seconds) * time.Second
	switch {
	case s.ExpiresAfterSeconds > 0 && s.FirstUsedAt == nil:
		s.ExpiresAfterSeconds += seconds
	case s.ExpiresAt == nil:
		return fmt.Errorf("subscription %d never expires, so there is nothing to extend", s.ID)
	default:
		from := *s.ExpiresAt
		if from.Before(now) {
			from = now.UTC().Truncate(time.Millisecond)
		}
		s.ExpiresAt = new(from.Add(while))
		if s.ExpiresAfterSeconds > 0 { // whole seconds: the end is never earlier than said
			s.ExpiresAfterSeconds = int64((s.ExpiresAt.Sub(*s.FirstUsedAt) + time.Second - 1) / time.Second)
		}
	}
	return nil
}

// maxExtension bounds Extend: a hundred years, in seconds.
const maxExtension = 100 * 365 * 24 * 3600

// turn begins the period that the time is in, where Enforce has not done it yet.
func (s *Subscription) turn(now time.Time, zone *time.Location) {
	if s.periodEnds == nil || s.periodEnds.After(now) {
		return
	}
	period := periods.Of(s.Period, s.CreatedAt, zone)
	s.Reset(period.Start(now))
	s.periodEnds = new(period.Next(now))
}

// settle makes the subscription's members fit each other after an edit.
func (s *Subscription) settle(now time.Time, zone *time.Location) error {
	s.Terms = s.withDefaults()
	for _, at := range []**time.Time{&s.ExpiresAt, &s.StartsBy, &s.FirstUsedAt, &s.PeriodStart} {
		if *at != nil {
			*at = new(stored(**at))
		}
	}
	if s.CreatedAt.IsZero() {
		s.CreatedAt = stored(now)
	}
	s.periodEnds = nil
	if next := periods.Of(s.Period, s.CreatedAt, zone).Next(now); !next.IsZero() {
		s.periodEnds = new(next.UTC())
	}
	if s.ExpiresAfterSeconds < 0 {
		return fmt.Errorf("a life of %d seconds from the first use: want 0 for a fixed end, or more", s.ExpiresAfterSeconds)
	}
	if s.FirstUsedAt == nil && s.StartsBy != nil && !s.StartsBy.After(now) {
		s.FirstUsedAt = s.StartsBy
	}
	if s.ExpiresAfterSeconds == 0 {
		s.FirstUsedAt, s.StartsBy = nil, nil
	} else if s.FirstUsedAt == nil {
		s.ExpiresAt = nil
	} else {
		s.ExpiresAt = new(s.FirstUsedAt.Add(time.Duration(s.ExpiresAfterSeconds) * time.Second))
	}
	s.expired = s.ExpiresAt != nil && !s.ExpiresAt.After(now)
	if s.LimitBytes == 0 {
		s.ExtraBytes = 0
	}
	// A limit and its extra can be too much together.
	s.limited = s.LimitBytes > 0 && s.UsedBytes-s.ExtraBytes >= s.LimitBytes
	return s.Check()
}

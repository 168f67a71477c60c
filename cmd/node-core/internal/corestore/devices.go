package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"nodeagent/coreapi"
)

// Device is one that has fetched a subscription's own link.
type Device = coreapi.Device

// MaxDevices bounds the devices of a subscription that are kept, and a limit of devices.
const MaxDevices = 1000

// maxFreeDevices is MaxDevices for a subscription without a limit: a person with the link can make up
// devices. The one that was silent for longest is forgotten.
const maxFreeDevices = 50

const deviceColumns = `id, subscription_id, name, hwid, os, os_version, model, user_agent, first_seen_at, last_seen_at`

func scanDevice(row interface{ Scan(...any) error }) (d Device, err error) {
	var first, last int64
	err = row.Scan(&d.ID, &d.SubscriptionID, &d.Name, &d.HWID, &d.OS, &d.OSVersion, &d.Model, &d.UserAgent, &first, &last)
	d.FirstSeenAt, d.LastSeenAt = time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC()
	return d, err
}

// Devices returns the devices of a subscription, the newest word first.
func (s *Store) Devices(ctx context.Context, subscriptionID int64) ([]Device, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+deviceColumns+` FROM devices WHERE subscription_id = ? ORDER BY last_seen_at DESC, id DESC`, subscriptionID)
	return collect(rows, err, func(r *sql.Rows) (Device, error) { return scanDevice(r) })
}

// EditDevice changes a device and returns it.
func (s *Store) EditDevice(ctx context.Context, id int64, edit func(*Device)) (d Device, err error) {
	return d, s.inTransaction(ctx, func(tx *sql.Tx) error {
		if d, err = scanDevice(tx.QueryRowContext(ctx, `SELECT `+deviceColumns+` FROM devices WHERE id = ?`, id)); err != nil {
			return orNotFound(err, "device", id)
		}
		edit(&d)
		_, err := tx.ExecContext(ctx, `UPDATE devices SET name = ? WHERE id = ?`, d.Name, id)
		return err
	})
}

// RemoveDevice forgets a device.
func (s *Store) RemoveDevice(ctx context.Context, id int64) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		removed, err := tx.ExecContext(ctx, `DELETE FROM devices WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n, err := removed.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return fmt.Errorf("device %d: %w", id, ErrNotFound)
	})
}

// AdmitDevice reports whether a device may fetch the subscription's link: one that is known, also
// where the limit was lowered since, and a new one below the limit. It keeps what the device says of
// itself. Only a new device of a subscription with a limit is stored at once; the rest is stored
// together with what others say (linkNotes).
func (s *Store) AdmitDevice(ctx context.Context, sub Subscription, d Device, now time.Time) (bool, error) {
	d.SubscriptionID, d.LastSeenAt = sub.ID, now
	if sub.LimitDevices == 0 {
		s.noteDevice(d)
		return true, nil
	}
	known, count, err := s.knownDevice(ctx, s.read, d)
	if err != nil {
		return false, fmt.Errorf("look for a device of subscription %d: %w", sub.ID, err)
	}
	if known {
		s.noteDevice(d)
		return true, nil
	}
	if count >= sub.LimitDevices {
		return false, nil
	}
	admitted := false
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		known, count, err := s.knownDevice(ctx, tx, d)
		if admitted = known || count < sub.LimitDevices; err != nil || known || !admitted {
			return err
		}
		return insertDevice(ctx, tx, d)
	})
	if err != nil {
		return false, fmt.Errorf("store a device of subscription %d: %w", sub.ID, err)
	}
	return admitted, nil
}

// knownDevice reports whether the subscription has the device, and how many it has.
func (s *Store) knownDevice(ctx context.Context, db queryer, d Device) (known bool, count int64, err error) {
	err = db.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(CASE WHEN hwid = ? THEN 1 ELSE 0 END), 0) > 0 FROM devices WHERE subscription_id = ?`, d.HWID, d.SubscriptionID).Scan(&count, &known)
	return known, count, err
}

func insertDevice(ctx context.Context, tx *sql.Tx, d Device) (err error) {
	if d.ID, err = nextID(ctx, tx, "devices"); err != nil {
		return err
	}
	args := []any{d.ID, d.SubscriptionID, d.Name, d.HWID, d.OS, d.OSVersion, d.Model, d.UserAgent, millis(d.LastSeenAt), millis(d.LastSeenAt)}
	_, err = tx.ExecContext(ctx, `INSERT INTO devices (`+deviceColumns+`) VALUES `+placeholders(len(args), 1)+` ON CONFLICT DO NOTHING`, args...)
	return err
}

// LastFetch returns when the subscription's own link was fetched last, nil for never, and how many
// devices have fetched it.
func (s *Store) LastFetch(ctx context.Context, subscriptionID int64) (last *coreapi.Fetched, devices int64, err error) {
	var at int64
	var agent string
	err = s.read.QueryRowContext(ctx, `SELECT at, user_agent FROM link_fetches WHERE subscription_id = ?`, subscriptionID).Scan(&at, &agent)
	switch {
	case err == nil:
		last = &coreapi.Fetched{At: time.UnixMilli(at).UTC(), UserAgent: agent}
	case !errors.Is(err, sql.ErrNoRows):
		return nil, 0, err
	}
	return last, devices, s.read.QueryRowContext(ctx, `SELECT count(*) FROM devices WHERE subscription_id = ?`, subscriptionID).Scan(&devices)
}

// deviceKey names a device.
type deviceKey struct {
	subscription int64
	hwid         string
}

// storeNotes stores fetches and what devices said, in steps, so that others wait little.
func (s *Store) storeNotes(ctx context.Context, fetches map[int64]coreapi.Fetched, devices map[deviceKey]Device) error {
	for part := range slices.Chunk(slices.Sorted(maps.Keys(fetches)), seenPerStep) {
		err := s.retried(ctx, s.write, func(tx *sql.Tx) error {
			if err := s.dialect.lockEdits(ctx, tx); err != nil {
				return err
			}
			for _, id := range part {
				// A subscription that was removed meanwhile is passed over.
				if _, err := tx.ExecContext(ctx, `INSERT INTO link_fetches (subscription_id, at, user_agent) SELECT id, ?, ? FROM subscriptions WHERE id = ?
					ON CONFLICT (subscription_id) DO UPDATE SET at = excluded.at, user_agent = excluded.user_agent WHERE link_fetches.at <= excluded.at`,
					millis(fetches[id].At), fetches[id].UserAgent, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("store when links were fetched: %w", err)
		}
	}
	for part := range slices.Chunk(slices.Collect(maps.Values(devices)), seenPerStep) {
		err := s.retried(ctx, s.write, func(tx *sql.Tx) error {
			if err := s.dialect.lockEdits(ctx, tx); err != nil {
				return err
			}
			for _, d := range part {
				if err := storeDevice(ctx, tx, d); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("store what devices said: %w", err)
		}
	}
	return nil
}

// storeDevice stores what a device said. A new one is added where the subscription has no limit;
// elsewhere AdmitDevice adds it, and one that is missing was removed meanwhile.
func storeDevice(ctx context.Context, tx *sql.Tx, d Device) error {
	updated, err := tx.ExecContext(ctx, `UPDATE devices SET os = ?, os_version = ?, model = ?, user_agent = ?, last_seen_at = max(last_seen_at, ?) WHERE subscription_id = ? AND hwid = ?`,
		d.OS, d.OSVersion, d.Model, d.UserAgent, millis(d.LastSeenAt), d.SubscriptionID, d.HWID)
	if err != nil {
		return err
	}
	if n, err := updated.RowsAffected(); err != nil || n > 0 {
		return err
	}
	var limit int64
	err = tx.QueryRowContext(ctx, `SELECT limit_devices FROM subscriptions WHERE id = ?`, d.SubscriptionID).Scan(&limit)
	if errors.Is(err, sql.ErrNoRows) || err == nil && limit > 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if err := insertDevice(ctx, tx, d); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM devices WHERE subscription_id = ?1 AND id NOT IN
		(SELECT id FROM devices WHERE subscription_id = ?1 ORDER BY last_seen_at DESC, id DESC LIMIT ?2)`, d.SubscriptionID, maxFreeDevices)
	return err
}

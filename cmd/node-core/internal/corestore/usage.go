package corestore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

const (
	// A row is flagged where it has more than is plausible (see Store.implausible), and where its minute
	// is further away from the time at which Core receives it: the node's clock was wrong, or the row waited longer than an agent keeps a row per
	// minute.
	farFuture = 10 * time.Minute
	farPast   = 45 * 24 * time.Hour
)

// AddUsage stores a batch of usage rows and adds them to the counters of their subscriptions.
// Bytes of a row that exists already are added to it: an agent may send a minute in several
// parts. A subscription that reaches its limit by the rows is limited with them, and Enforce gives
// the nodes that it is on their documents at once. Rows of users, subscriptions and inbounds that were removed meanwhile are stored too.
// key is the batch's Idempotency-Key or empty. strange counts the rows that are left out,
// since their ids were never the node's: see withoutStrange.
func (s *Store) AddUsage(ctx context.Context, nodeID int64, key string, entries []wire.UsageEntry) (strange int, err error) {
	now := s.clock()
	if err := s.turnDue(ctx, now); err != nil {
		return 0, err
	}
	implausible, err := s.implausible(ctx, nodeID, entries)
	if err != nil {
		return 0, err
	}
	var due bool // for Enforce
	// A change of a status is an edit, which waits for others before it locks rows. Most batches change
	// none. SQLite has nothing to wait for.
	edits := s.direct == nil
	store := func(tx *sql.Tx) error {
		if edits {
			if err := s.dialect.lockEdits(ctx, tx); err != nil {
				return err
			}
		}
		own, err := withoutStrange(ctx, tx, nodeID, entries, now)
		if err != nil {
			return err
		}
		strange = len(entries) - len(own)
		s.moved.Store(tx, movedBy(nodeID, own))
		if err := s.dialect.insertUsage(ctx, tx, nodeID, withoutRepeats(own), doubts{now, implausible}); err != nil {
			return fmt.Errorf("store usage: %w", err)
		}
		due, err = s.count(ctx, tx, nodeID, own, now, edits)
		return err
	}
	err = s.applyOnce(ctx, nodeID, wire.PathUsage, key, store)
	if errors.Is(err, errEdits) {
		edits = true
		err = s.applyOnce(ctx, nodeID, wire.PathUsage, key, store)
	}
	if due && err == nil {
		s.enforcing.wake()
	}
	return strange, err
}

// errEdits rolls back the transaction of a batch that has to wait for edits first.
var errEdits = errors.New("the batch changes statuses")

// count adds usage rows of a node to all that counts them. Without edits, it returns errEdits where a
// status is to change. due says that something is due that was not
// before: a document, or the end of a life that has begun.
func (s *Store) count(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry, now time.Time, edits bool) (due bool, err error) {
	c, err := countingOf(ctx, tx, nodeID, entries, now)
	if err != nil {
		return false, err
	}
	begun, err := noteFirstUse(ctx, tx, entries, now)
	if err != nil {
		return false, err
	}
	over, err := s.addToSubscriptions(ctx, tx, entries, c, now)
	if err != nil {
		return false, err
	}
	if !edits && slices.ContainsFunc(over, func(o overLimit) bool { return o.reached }) {
		return false, errEdits
	}
	crossed, err := limit(ctx, tx, over)
	if err != nil {
		return false, err
	}
	granted, err := noteNear(ctx, tx, nodeID, entries, over, now)
	if err != nil {
		return false, err
	}
	stops, err := s.addToBudget(ctx, tx, nodeID, entries)
	if err != nil {
		return false, err
	}
	var nodes []int64
	if stops {
		nodes = []int64{nodeID}
	}
	return begun || stops || granted || len(crossed) > 0, s.noteStatuses(ctx, tx, crossed, nodes...)
}

// withoutRepeats returns the rows with those of one minute, user, subscription and inbound in one:
// PostgreSQL changes a row only once in a statement.
func withoutRepeats(entries []wire.UsageEntry) []wire.UsageEntry {
	type key struct{ at, user, subscription, protocol int64 }
	places := make(map[key]int, len(entries))
	merged := make([]wire.UsageEntry, 0, len(entries))
	for _, e := range entries {
		k := key{millis(e.RecordedAt), e.UserID, subscriptionID(e), e.NodeProtocolID}
		if i, is := places[k]; is {
			merged[i].BytesUp, merged[i].BytesDown = added(merged[i].BytesUp, e.BytesUp), added(merged[i].BytesDown, e.BytesDown)
			continue
		}
		places[k] = len(merged)
		merged = append(merged, e)
	}
	return merged
}

// subscriptionID returns the id as it is stored: 0 for none.
func subscriptionID(e wire.UsageEntry) int64 {
	if e.SubscriptionID == nil {
		return 0
	}
	return *e.SubscriptionID
}

// rowsPerStatement is how many rows one INSERT has. BenchmarkUsage is no faster with more.
const rowsPerStatement = 250

func (sqliteDialect) insertUsage(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry, doubts doubts) error {
	for some := range slices.Chunk(entries, rowsPerStatement) {
		if err := insertRows(ctx, tx, nodeID, some, doubts); err != nil {
			return err
		}
	}
	return nil
}

// doubts say which rows of a batch are flagged: those that come at a strange time, and those of
// subscriptions with more bytes than are plausible.
type doubts struct {
	now         time.Time
	implausible map[int64]bool // by subscription
}

func (d doubts) about(e wire.UsageEntry) bool {
	return isFlagged(e, d.now) || d.implausible[subscriptionID(e)]
}

// isFlagged reports whether a row's time is far from when Core received it.
func isFlagged(e wire.UsageEntry, now time.Time) bool {
	return e.RecordedAt.After(now.Add(farFuture)) || e.RecordedAt.Before(now.Add(-farPast))
}

func insertRows(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry, doubts doubts) error {
	args := make([]any, 0, 8*len(entries))
	for _, e := range entries {
		args = append(args, nodeID, millis(e.RecordedAt), e.UserID, subscriptionID(e), e.NodeProtocolID, e.BytesUp, e.BytesDown, doubts.about(e))
	}
	_, err := tx.ExecContext(ctx, `
		INSERT INTO usage (node_id, recorded_at, user_id, subscription_id, node_protocol_id, bytes_up, bytes_down, flagged)
		VALUES `+placeholders(8, len(entries))+` `+addToUsage, args...)
	return err
}

// addToUsage is the end of an INSERT into usage: what a row that exists has is added to it.
var addToUsage = `ON CONFLICT (node_id, recorded_at, user_id, subscription_id, node_protocol_id) DO UPDATE SET
	bytes_up = ` + plus("usage.bytes_up", "excluded.bytes_up") + `, bytes_down = ` + plus("usage.bytes_down", "excluded.bytes_down") + `,
	flagged = max(usage.flagged, excluded.flagged)`

// placeholders returns the VALUES of an INSERT: "(?,?),(?,?)" for two rows of two columns.
func placeholders(columns, rows int) string {
	row := "(?" + strings.Repeat(",?", columns-1) + ")"
	return row + strings.Repeat(","+row, rows-1)
}

// subscriptionOf is a subscription and the user whose it is. A row that names another user is
// stored, and no counter gets it.
type subscriptionOf struct{ id, user int64 }

// subscriptionSum is what a batch adds to the counters of a subscription.
type subscriptionSum struct {
	subscriptionOf
	up, down int64
	// used is what counts for the limit of the period, and rest the thousandths of a byte beside
	// it. Before they are weighed, used has the bytes.
	used, rest int64
}

// addToSubscriptions adds the rows to the counters of their subscriptions. It returns those that
// have reached their limits or are near.
func (s *Store) addToSubscriptions(ctx context.Context, tx *sql.Tx, entries []wire.UsageEntry, c counting, now time.Time) ([]overLimit, error) {
	sums := map[subscriptionOf]subscriptionSum{}
	for _, e := range entries {
		if e.SubscriptionID == nil {
			continue
		}
		of := subscriptionOf{*e.SubscriptionID, e.UserID}
		sum := sums[of]
		sum.subscriptionOf, sum.up, sum.down = of, added(sum.up, e.BytesUp), added(sum.down, e.BytesDown)
		if c.counts(e, now) {
			sum.used = added(sum.used, added(e.BytesUp, e.BytesDown))
		}
		sums[of] = sum
	}
	if len(sums) == 0 {
		return nil, nil
	}
	ordered := slices.SortedFunc(maps.Values(sums), func(a, b subscriptionSum) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.user, b.user))
	})
	for i := range ordered {
		ordered[i].used, ordered[i].rest = weighed(ordered[i].used, c.multiplier)
	}
	over, err := s.dialect.addSums(ctx, tx, ordered)
	if err != nil {
		return nil, fmt.Errorf("add to subscriptions: %w", err)
	}
	return over, nil
}

// overLimit is a subscription that has reached its limit, and is not limited yet, or that is near.
type overLimit struct {
	id      int64
	reached bool
}

func scanOver(r *sql.Rows) (o overLimit, err error) { return o, r.Scan(&o.id, &o.reached) }

// These are conditions on a subscription and used, what a batch has counted for it: it has reached
// its limit, and it has or is near, by its pace or by quietRest. The sum of limit_bytes and extra_bytes could be too much for a
// column, and so could used without the bound.
const hasReached = `used_bytes - extra_bytes >= limit_bytes`

var isNear = fmt.Sprintf(`limit_bytes > 0 AND limited = 0 AND used_bytes - extra_bytes >= limit_bytes - max(min(used, %d) * %d, %d)`, int64(maxSum)/nearPaces/2, nearPaces, quietRest)

// limit marks subscriptions that have reached their limits as limited, and returns those whose
// status that has changed.
func limit(ctx context.Context, tx *sql.Tx, over []overLimit) (changes []statusChange, err error) {
	var ids []any
	for _, o := range over {
		if o.reached {
			ids = append(ids, o.id)
		}
	}
	for ids := range chunks(ids) {
		rows, err := tx.QueryContext(ctx, `UPDATE subscriptions SET limited = 1 WHERE id IN `+placeholders(len(ids), 1)+`
			RETURNING id, group_id, status, expires_after > 0 AND first_used_at IS NULL`, ids...)
		some, err := collect(rows, err, func(r *sql.Rows) (c statusChange, err error) {
			var holds bool
			err = r.Scan(&c.subscription, &c.group, &c.to, &holds)
			if c.from = Active; holds {
				c.from = OnHold
			}
			return c, err
		})
		if err != nil {
			return nil, fmt.Errorf("limit subscriptions: %w", err)
		}
		for _, c := range some {
			if c.to == Limited { // and not disabled or expired before
				changes = append(changes, c)
			}
		}
	}
	return changes, nil
}

// addUsed adds what a batch counts for the limit of a period.
func addUsed(used, rest string) string {
	carried := `(` + used + ` + (used_rest + ` + rest + `) / 1000)`
	return `used_bytes = CASE WHEN used_bytes > ` + fmt.Sprint(int64(maxSum)-1) + ` - ` + used + ` THEN ` + fmt.Sprint(int64(maxSum)) + ` ELSE used_bytes + ` + carried + ` END,
		used_rest = (used_rest + ` + rest + `) % 1000`
}

func (sqliteDialect) addSums(ctx context.Context, tx *sql.Tx, sums []subscriptionSum) (over []overLimit, err error) {
	update, err := tx.PrepareContext(ctx, `UPDATE subscriptions SET bytes_up = `+plus("bytes_up", "?1")+`,
		bytes_down = `+plus("bytes_down", "?2")+`, `+addUsed("?3", "?4")+` WHERE id = ?5 AND user_id = ?6`)
	if err != nil {
		return nil, err
	}
	defer update.Close()
	counted := make([]any, 0, 2*len(sums))
	for _, sum := range sums {
		if _, err := update.ExecContext(ctx, sum.up, sum.down, sum.used, sum.rest, sum.id, sum.user); err != nil {
			return nil, fmt.Errorf("subscription %d: %w", sum.id, err)
		}
		counted = append(counted, sum.id, sum.used)
	}
	for some := range slices.Chunk(counted, 2*rowsPerStatement) {
		rows, err := tx.QueryContext(ctx, `WITH counted (of, used) AS (VALUES `+placeholders(2, len(some)/2)+`)
			SELECT id, `+hasReached+` FROM counted CROSS JOIN subscriptions WHERE id = of AND `+isNear, some...)
		some, err := collect(rows, err, scanOver)
		if err != nil {
			return nil, err
		}
		over = append(over, some...)
	}
	return over, nil
}

// UsageRow is one stored usage row and the node that sent it.
type UsageRow = coreapi.UsageRow

// Usage returns the newest usage rows, at most limit, the newest first.
func (s *Store) Usage(ctx context.Context, limit int) ([]UsageRow, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT node_id, user_id, nullif(subscription_id, 0), node_protocol_id, bytes_up, bytes_down, recorded_at, flagged
		FROM usage ORDER BY recorded_at DESC, node_id, user_id LIMIT ?`, limit)
	return collect(rows, err, func(r *sql.Rows) (UsageRow, error) {
		var row UsageRow
		var at int64
		err := r.Scan(&row.NodeID, &row.UserID, &row.SubscriptionID, &row.NodeProtocolID, &row.BytesUp, &row.BytesDown, &at, &row.Flagged)
		row.RecordedAt = time.UnixMilli(at).UTC()
		return row, err
	})
}

package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore/pgsql"
)

// maxFaults bounds how many faults of a database are named.
const maxFaults = 20

// ErrFaulty means that a database has faults. Its text names them.
var ErrFaulty = errors.New("the database has faults")

// Checked is what Check has counted.
type Checked struct {
	Nodes         int64 `json:"nodes"`
	Users         int64 `json:"users"`
	Subscriptions int64 `json:"subscriptions"`
	UsageRows     int64 `json:"usageRows"`
	BytesUp       int64 `json:"bytesUp"`   // of all subscriptions
	BytesDown     int64 `json:"bytesDown"` // of all subscriptions
}

// Check reads the whole database of the data folder dir, which may be in use: whether SQLite
// finds its structure sound, whether references lead somewhere, and whether the counters of
// each subscription are the sums of its usage rows. The error is ErrFaulty where they are not.
func Check(ctx context.Context, dir string) (c Checked, err error) {
	db, err := openExisting(filepath.Join(dir, fileName))
	if err != nil {
		return c, fmt.Errorf("read the database: %w; is this the right --data-dir?", err)
	}
	return check(ctx, db, sqliteDialect{})
}

// CheckPostgres is Check for PostgreSQL, which keeps references and pages sound by itself.
func CheckPostgres(ctx context.Context, database Postgres) (c Checked, err error) {
	config, err := postgresConfig(database.URL)
	if err != nil {
		return c, err
	}
	c, err = check(ctx, pgsql.Open(config), postgresDialect{})
	if err != nil && !errors.Is(err, ErrFaulty) {
		err = openPostgresError(config, err)
	}
	return c, err
}

// check checks a database and closes it.
func check(ctx context.Context, db *sql.DB, of dialect) (c Checked, err error) {
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // one state for all questions
	if err != nil {
		return c, fmt.Errorf("read the database: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing is changed
	if err := of.integrity(ctx, tx); err != nil {
		return c, err
	}
	if err := checkSums(ctx, tx); err != nil {
		return c, err
	}
	var up, down [2]int64
	err = tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM nodes), (SELECT count(*) FROM users), (SELECT count(*) FROM subscriptions),
		(SELECT count(*) FROM usage), coalesce(sum(bytes_up >> 32), 0), coalesce(sum(bytes_up & 4294967295), 0),
		coalesce(sum(bytes_down >> 32), 0), coalesce(sum(bytes_down & 4294967295), 0) FROM subscriptions`).
		Scan(&c.Nodes, &c.Users, &c.Subscriptions, &c.UsageRows, &up[0], &up[1], &down[0], &down[1])
	c.BytesUp, c.BytesDown = whole(up), whole(down)
	return c, err
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// integrity returns ErrFaulty where SQLite finds the database damaged.
func (sqliteDialect) integrity(ctx context.Context, db querier) error {
	rows, err := db.QueryContext(ctx, fmt.Sprintf(`PRAGMA integrity_check(%d)`, maxFaults))
	found, err := collect(rows, err, func(r *sql.Rows) (text string, err error) { return text, r.Scan(&text) })
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFaulty, err)
	}
	if len(found) == 1 && found[0] == "ok" {
		found = nil
	}
	rows, err = db.QueryContext(ctx, `SELECT DISTINCT 'a row of '||"table"||' names a row of '||parent||' that is gone' FROM pragma_foreign_key_check LIMIT ?`, maxFaults)
	orphans, err := collect(rows, err, func(r *sql.Rows) (text string, err error) { return text, r.Scan(&text) })
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFaulty, err)
	}
	return faulty(append(found, orphans...))
}

// checkSums compares the subscriptions' counters with their usage rows.
func checkSums(ctx context.Context, db querier) error {
	// The sums are taken in two halves of 32 bits, which do not overflow.
	rows, err := db.QueryContext(ctx, `SELECT s.id, s.bytes_up, s.bytes_down, s.carried_up, s.carried_down, coalesce(sum(u.bytes_up >> 32), 0), coalesce(sum(u.bytes_up & 4294967295), 0),
		coalesce(sum(u.bytes_down >> 32), 0), coalesce(sum(u.bytes_down & 4294967295), 0)
		FROM subscriptions s LEFT JOIN usage u ON u.subscription_id = s.id AND u.user_id = s.user_id GROUP BY s.id ORDER BY s.id`)
	var found []string
	_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id, up, down, carriedUp, carriedDown int64
		var rowsUp, rowsDown [2]int64
		err := r.Scan(&id, &up, &down, &carriedUp, &carriedDown, &rowsUp[0], &rowsUp[1], &rowsDown[0], &rowsDown[1])
		// A counter that stands at maxSum has had more than it can count.
		haveUp, haveDown := added(whole(rowsUp), carriedUp), added(whole(rowsDown), carriedDown)
		if (up != haveUp && up != maxSum || down != haveDown && down != maxSum) && len(found) < maxFaults {
			found = append(found, fmt.Sprintf("subscription %d has counted %d bytes up and %d down, and its usage rows and what was imported have %d and %d", id, up, down, haveUp, haveDown))
		}
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFaulty, err)
	}
	return faulty(found)
}

// whole returns the sum of which it gets the upper and the lower halves, maxSum at the most.
func whole(halves [2]int64) int64 {
	upper := halves[0] + halves[1]>>32
	if upper >= 1<<31 {
		return maxSum
	}
	return upper<<32 | halves[1]&0xffffffff
}

func faulty(found []string) error {
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrFaulty, strings.Join(found, "; "))
}

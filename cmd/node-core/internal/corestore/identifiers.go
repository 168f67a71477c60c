package corestore

import (
	"context"
	"database/sql"
	"time"
)

// Ids and revisions carry the time at which they are given out: each is the greater of the
// last one plus one and the time in Unix milliseconds. A database that was restored from a
// copy, by whatever means, has forgotten what it gave out after the copy was made. What it
// gives out now is greater all the same, as long as fewer than a thousand rows a second were
// added and the clock was not set back. The ids that earlier versions gave out are small.

// nextID returns the id of the next row of a table, whose key has AUTOINCREMENT: SQLite
// keeps the greatest id that the table has ever had in sqlite_sequence.
func nextID(ctx context.Context, tx *sql.Tx, table string) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `SELECT max(?, coalesce(max(seq), 0) + 1) FROM sqlite_sequence WHERE name = ?`,
		millis(time.Now()), table).Scan(&id)
	return id, err
}

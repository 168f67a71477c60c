// Package pgsql lets SQL that is written for SQLite run on PostgreSQL: a driver for database/sql
// over pgx that rewrites parameters, and the requests that the store makes of PostgreSQL alone.
//
// The driver changes these things in a statement:
//
//   - ? and ?1 become $1, with a cast to the type of the Go value ($1::bigint). PostgreSQL
//     would else guess a type from the first place where the parameter stands, and "?1 = 0"
//     makes it an integer of 32 bits.
//   - A nil becomes NULL in the text, which needs no type.
//   - A bool becomes 1 or 0: the columns that SQLite has as INTEGER are BIGINT.
//   - LIKE becomes ILIKE: SQLite's LIKE does not look at the case of letters.
//   - A text loses what PostgreSQL can't store: bytes that are not UTF-8, and NUL, become U+FFFD.
//
// A statement for many rows is not kept prepared: its text depends on the number of rows, and on which
// values are nil.
package pgsql

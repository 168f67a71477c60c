// Package corestore stores everything that Core knows in one database, of SQLite or of
// PostgreSQL: nodes, inbounds, outbounds, users, subscriptions, traffic and events. Store says
// how transactions work and what survives a crash.
//
// The package has a file for each noun, and so more files than others: all of them share the
// connections and their transactions, and each is small.
//
// # One text of SQL for both databases
//
// Statements are SQLite's, and package pgsql adapts their parameters to PostgreSQL. TestPostgres
// runs every test that calls openStore on both. What PostgreSQL needs beside:
//
//   - ON CONFLICT ... DO UPDATE names its columns: ON CONFLICT (node_id, tag) DO UPDATE. Old
//     values have the name of the table: SET sum = subscriptions.sum + excluded.sum.
//   - IS NOT DISTINCT FROM compares with NULL, and not IS.
//   - A flag is an integer: WHERE enabled = 1, and not WHERE enabled.
//   - A subquery in FROM has a name: FROM (SELECT ...) newest.
//   - max(a, b) and min(a, b) are there for whole numbers. Hexadecimal numbers are not.
//   - Results are read to the end before the next statement of a transaction (collect).
//   - Ids come from nextID in tables with the trigger note_ids, and by themselves in tables
//     with an identity. Those of events come at the commit (eventIDs).
//   - One INSERT has each key once.
//
// A migration gets one number and two files, migrations/NNNNN_name.sql and
// migrations/postgres/NNNNN_name.sql. TestBothDatabasesHaveTheSameTables compares the results.
// INTEGER is BIGINT there, BLOB is BYTEA, TEXT is TEXT COLLATE "C"; STRICT and WITHOUT ROWID
// are left out. What is truly different stands in dialect.go.
package corestore

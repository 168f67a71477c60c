// Package corestore stores everything that Core knows in one SQLite database: nodes,
// inbounds, outbounds, users, subscriptions, traffic and events. Store says how
// transactions work and what survives a crash.
//
// The package has a file for each noun, and so more files than others: all of them share the
// one write connection and its transactions, and each is small.
package corestore

// Package corestore stores everything that Core knows in one SQLite database: nodes,
// inbounds, outbounds, users, subscriptions, traffic and events. Store says how
// transactions work and what survives a crash.
package corestore

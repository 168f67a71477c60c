// Package agent makes the daemon's decisions: when to ask Core, whether to apply a
// configuration, to which clients counted traffic belongs, and what Core is told. It opens no socket,
// file or process. The interfaces that it needs are in ports.go.
//
// Desired state comes in, and what happened goes out:
//
//	Core → sync.go → apply.go → the engines
//	the engines → inbox.go and the counters → sessions.go, collect.go → the store's outbox
//	the outbox → delivery.Courier → Core
//
// The engines go on serving whatever fails elsewhere: Core, the disk, or another engine.
//
// The package is larger than others: applying, rolling back, sessions and slots work on the
// same few values under two locks, which no other package may take. What has values of its
// own is in agent/delivery and agent/identity.
package agent

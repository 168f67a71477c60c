// Package importer reads what other panels have and makes of it what Core's admin API adds: 3x-ui
// and Marzban from their SQLite files, Marzban and remnawave from the answers of their APIs.
//
// Each reader makes a panel, which has inbounds and people in words of no panel. panel.finish makes
// of that one coreapi.Import: it chooses names, UUIDs, groups and credentials, and lists by name
// what is not carried over, with the reason.
//
// The files are trusted with nothing: they may be broken, half-migrated, huge or made to do harm.
// A database is copied and the copy is read (database). All texts become valid UTF-8 without control
// characters, all counts are bounded, and an error changes nothing, since nothing was sent yet.
package importer

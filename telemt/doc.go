// Package telemt is the MTProto engine. It keeps one telemt process running for each
// MTProto inbound that Core wants, counts what the clients move, and reports who is
// online. At its centre are Engine, which owns the set of inbounds, and keeper, which owns
// one of them.
//
// Package telemt/service has the inbounds that Core wants, telemt/process one telemt process
// with its folder, telemt/api telemt's HTTP API. This package decides when to start,
// change, stop and read a process. It does not decide which configuration is good: the
// agent calls Apply, and keeps the configuration if Apply returns no error.
//
//	  Apply, Restore                internal/filewatch    Collect, Status, Version
//	        │                                │                    │
//	        ▼ requests                       │ a file             │
//	┌ Engine.Run, one goroutine ───────────┐ │ may have changed   │
//	│ owns: desired, which keepers there   │ │                    │
//	│ are, what is watched                 │ │                    │
//	└───────┬──────────────────────────────┘ │                    │
//	        │ keeper.do(func)                │ keeper.do(func)    │ keeper.do(collect)
//	        ▼                                ▼                    ▼
//	┌ keeper.run, one goroutine for each inbound ───────────────┐
//	│ owns: the process, its file, its counters, the next retry ├──► Deps: Count, Presence,
//	└───────┬───────────────────────────────────────────────────┘    SlotsClosed, Failed, Noted
//	        ▼
//	telemt run, with a folder, an API and metrics of its own
//
// Goroutines. Everything that waits for a telemt happens on the goroutine of its keeper;
// other goroutines hand it a function with keeper.do. An Apply changes all inbounds at the
// same time and waits for all of them. The functions in Deps are called on the keepers'
// goroutines: for one inbound never two at once, for several inbounds possibly at once.
//
// Failures. If one inbound can't be changed, Apply brings all inbounds back to what ran
// before. An inbound that does not run, whether at a restore, after a crash, or because no
// telemt is installed, is started again and again by its keeper, and delays no other
// inbound and no later Apply.
//
// Adoption. A telemt outlives the daemon (Deps.Octets). The first Restore goes on with those whose
// inbounds it has, and ends the others.
package telemt

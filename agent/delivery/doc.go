// Package delivery brings what the store's outbox holds to Core, and puts the agent's
// reports into the outbox.
//
//	agent ──Failed, Applied──► Reporter ──► outbox (store) ──► Courier ──► Core
//
// A Link says whether Core answers and whether it accepts the node's key. The agent's
// heartbeats keep it up to date, and the Courier obeys it.
package delivery

// Package coreclient speaks the node's side of Core's routes over HTTP: one
// method a route, one kind of error. It retries for seconds what a moment may
// mend; who calls it retries for minutes.
package coreclient

// Package api talks to one running telemt: Client calls its control API and reads its
// metrics, both over HTTP on loopback.
//
// The package only asks and decodes. It keeps no connection open, repeats no call and
// starts no goroutine. Which of telemt's answers count as a failure is for the caller to
// decide. The documentation of the API is docs/Architecture/API/API.md in telemt's
// repository, as of release 3.4.25.
package api

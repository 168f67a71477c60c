// Package webhook sends Core's events to the operators' own servers, as the Standard Webhooks
// specification says (standardwebhooks.com): a POST with the event as JSON, its id, the time of the
// try, and a signature over the three.
//
// Each webhook gets its events in order, one at a time. The database has the position of each, so that
// an event is sent again, under the same id, where Core ends between the answer and the note of it. Of
// several instances on one PostgreSQL, one sends.
package webhook

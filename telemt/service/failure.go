package service

// FailureCode tells kinds of failure apart. Core gets it in a report.
type FailureCode string

// The failure codes.
const (
	FailureMissing   FailureCode = "missing"     // no telemt is installed, or an unusable one
	FailurePortInUse FailureCode = "port_in_use" // another process listens on the inbound's port
	FailureApply     FailureCode = "apply"       // telemt rejected the configuration, or did not start
	FailureCrash     FailureCode = "crash"       // telemt ended without being asked to
)

// ApplyError means that an inbound could not be changed as asked. What was served
// before is served again, or its start is tried again.
type ApplyError struct {
	Code    FailureCode
	Tag     string // of the inbound
	Port    uint16 // of the inbound; may be 0
	Message string // complete, with telemt's own words, without secrets
	Cause   error  // may be nil; Message has its text already
	// Final is true where telemt refuses the text of the configuration: another try of the
	// same text does not help.
	Final bool
	// Ended is true where telemt has ended by itself while it started.
	Ended bool
}

func (e *ApplyError) Error() string { return e.Message }
func (e *ApplyError) Unwrap() error { return e.Cause }

// BackError says that an inbound could not be brought back to what ran before a change. It says
// nothing about the change: the engine goes on to try.
type BackError struct{ Err error }

func (e *BackError) Error() string { return "go back to what ran before: " + e.Err.Error() }
func (e *BackError) Unwrap() error { return e.Err }

// ApplyErrors returns the errors of single inbounds in the tree of err, without those in a
// *BackError.
func ApplyErrors(err error) []*ApplyError {
	switch err := err.(type) { //nolint:errorlint // it walks the tree by itself
	case nil, *BackError:
		return nil
	case *ApplyError:
		return []*ApplyError{err}
	case interface{ Unwrap() []error }:
		var all []*ApplyError
		for _, e := range err.Unwrap() {
			all = append(all, ApplyErrors(e)...)
		}
		return all
	case interface{ Unwrap() error }:
		return ApplyErrors(err.Unwrap())
	}
	return nil
}

// Failure is a problem of one inbound that no Apply reports: it came up by itself, or
// the Apply succeeded for the other inbounds.
type Failure struct {
	Code    FailureCode
	Tag     string // of the inbound
	Port    uint16 // of the inbound
	Message string // complete, without secrets
}

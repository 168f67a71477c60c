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
}

func (e *ApplyError) Error() string { return e.Message }
func (e *ApplyError) Unwrap() error { return e.Cause }

// Failure is a problem of one inbound that no Apply reports: it came up by itself, or
// the Apply succeeded for the other inbounds.
type Failure struct {
	Code    FailureCode
	Tag     string // of the inbound
	Port    uint16 // of the inbound
	Message string // complete, without secrets
}

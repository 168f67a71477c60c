package service

// FailureCode tells what kind of failure it is.
type FailureCode string

// The failure codes.
const (
	FailureMissing   FailureCode = "missing"     // there is no telemt to run, or one that is too old
	FailurePortInUse FailureCode = "port_in_use" // another process holds the port
	FailureApply     FailureCode = "apply"       // telemt did not take the configuration, or did not come up
	FailureCrash     FailureCode = "crash"       // it ended by itself
)

// ApplyError means that an inbound could not be brought to what was wanted; it
// is as it was before.
type ApplyError struct {
	Code    FailureCode
	Tag     string
	Port    uint16
	Message string // with telemt's own words, without secrets

	Cause error // may be nil
}

func (e *ApplyError) Error() string { return e.Message }
func (e *ApplyError) Unwrap() error { return e.Cause }

// Failure is something that broke by itself, or an inbound that fails alone.
type Failure struct {
	Code    FailureCode
	Tag     string
	Port    uint16
	Message string
}

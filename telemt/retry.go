package telemt

import (
	"errors"
	"fmt"
	"time"

	"nodeagent/internal/logkey"
	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

// handleExit reports a telemt that has ended by itself, and sets the time to start it
// again.
func (k *keeper) handleExit() {
	dead := k.process
	k.process = nil
	k.traffic.processEnded(time.Now())
	reason := "exit status 0"
	if err := dead.Err(); err != nil {
		reason = err.Error()
	}
	wait := k.backoff.Next(time.Since(dead.Started))
	k.log.Error("telemt ended; starting it again", logkey.PID, dead.PID(), logkey.Reason, reason, logkey.Output, dead.Output.ExitReason(), logkey.NextIn, wait)
	k.deps.Failed(service.Failure{
		Code: service.FailureCrash, Tag: k.tag, Port: k.desired.Inbound.Port,
		Message: fmt.Sprintf("mtproto inbound %q: telemt ended: %s; it is being started again", k.tag, reason),
	})
	k.mu.Lock()
	k.status.Restarts++
	k.mu.Unlock()
	k.publish(StateFailed, "telemt ended: "+reason)
	k.retryAt = time.Now().Add(wait)
}

// retry starts an inbound that does not run, or changes again one that runs something else
// than desired. What an apply asked for during the start follows it.
func (k *keeper) retry() {
	k.retryAt = time.Time{}
	if k.process != nil {
		if err := k.change(k.life, k.desired); err != nil && k.life.Err() == nil {
			k.retryLater(err)
		}
		return
	}
	k.mu.Lock()
	k.retrying = k.status.State == StateFailed && k.running.Inbound.Tag == ""
	k.mu.Unlock()
	err := k.start(k.life, k.desired)
	k.mu.Lock()
	pending := k.pending
	k.retrying, k.pending = false, nil
	k.mu.Unlock()
	if pending != nil {
		k.desired = *pending
		if err == nil {
			err = k.change(k.life, k.desired)
		} else {
			k.adoptClients(k.desired)
		}
	}
	if err != nil && k.life.Err() == nil {
		k.retryLater(err)
	}
}

// retryLater reports that the inbound is not served as desired, and sets the time to try
// it again.
func (k *keeper) retryLater(err error) { k.deps.Failed(k.retrySoon(err)) }

// retrySoon sets the time to try the inbound again, and returns why it is not served as desired.
func (k *keeper) retrySoon(err error) service.Failure {
	failure := service.Failure{Code: service.FailureApply, Tag: k.tag, Port: k.desired.Inbound.Port, Message: err.Error()}
	wait := max(k.backoff.Next(0), backoffMin)
	if applyErr, ok := errors.AsType[*service.ApplyError](err); ok {
		failure.Code = applyErr.Code
	}
	_, missing := errors.AsType[*process.MissingError](err)
	if missing {
		failure.Code, wait = service.FailureMissing, missingWait
		failure.Message = fmt.Sprintf("mtproto inbound %q is not served: %v", k.tag, err)
	}
	k.log.Error("an mtproto inbound is not served; trying again", logkey.Code, failure.Code, logkey.Error, err, logkey.NextIn, wait)
	k.retryAt = time.Now().Add(wait)
	if k.process == nil {
		k.running = service.Desired{}
		k.publish(StateFailed, failure.Message)
		k.mu.Lock()
		k.status.Missing = missing
		k.mu.Unlock()
	}
	return failure
}

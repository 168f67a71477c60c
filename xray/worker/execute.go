package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/features/inbound"

	"nodeagent/internal/counters"
	"nodeagent/internal/fault"
	"nodeagent/internal/filewatch"
	"nodeagent/xray/ipc"
	"nodeagent/xray/members"
	"nodeagent/xray/state"
	"nodeagent/xray/worker/certfiles"
	"nodeagent/xray/worker/features"
)

// executor executes the daemon's operations on the instance.
//
// Only the goroutine of server.operate uses it, so it has no lock: operations run one after
// the other. Other goroutines hand a function to later, which runs it between two operations;
// the file watch does so for changed geo files. Two exceptions read without later: the
// goroutine of server.drain closes inbounds, and server.info reads the atomic counters of
// clients.
//
// Invariants: an operation that fails leaves everything as it was. Clients are announced to
// the registry before their inbound accepts them, and they are removed from the inbound
// before the registry forgets them, so that no stream of a valid client is refused. shells
// has an entry for each inbound that runs, and, in a drained worker, for each inbound that
// has been closed and may still have streams.
type executor struct {
	*instance
	slots  *counters.File
	dryRun bool             // build everything, listen on nothing
	files  *certfiles.Files // nil in a dry run
	watch  *filewatch.Watch // watches certificates and geo files; nil in a dry run
	tell   func(ipc.Notice) // must not block
	geo    geoRouting
	held   []state.Binding          // the bindings of another worker of this daemon, which this one may share
	shells map[string]state.Inbound // the inbounds that run, without clients, by tag
	// prepared has the tags of the inbounds in shells that do not listen yet.
	prepared map[string]bool
	later    func(func()) // runs a function between two operations
	// runs is what the operations led to, without clients, as ipc.Running.State.
	runs state.State
}

// do executes one operation. It returns nil, or a fault that names the inbound's port and has
// no secrets in its message.
func (e *executor) do(op *state.Operation) *fault.Fault {
	failure := operationError(e.try(op))
	if failure == nil {
		e.note(*op)
		return nil
	}
	if e.prepared[op.Tag] && (op.Kind == state.OpAddUsers || op.Kind == state.OpOpenInbound) {
		_ = e.try(&state.Operation{Kind: state.OpRemoveInbound, Tag: op.Tag}) // it has not listened
	}
	if port := firstPort(op.Inbound); port != 0 && failure.Port == 0 {
		failure.Port = port
		failure.Message += fmt.Sprintf(" (port %d)", port)
	}
	failure.Message = redact(failure.Message, op)
	return failure
}

// note adds an operation that succeeded to runs.
func (e *executor) note(op state.Operation) {
	switch op.Kind {
	case state.OpAddUsers, state.OpUpdateUsers, state.OpRemoveUsers, state.OpPrepareInbound:
		return
	case state.OpOpenInbound:
		op.Kind = state.OpReplaceInbound
	case state.OpReleaseInbound: // another daemon shall open it again
		op.Kind = state.OpRemoveInbound
	case state.OpPutOutbound, state.OpRemoveOutbound, state.OpDefaultOutbound, state.OpSetRouting, state.OpSetPolicy, state.OpSetDNS,
		state.OpAddInbound, state.OpReplaceInbound, state.OpRemoveInbound:
	}
	op.Users = nil
	e.runs = e.runs.After(op)
}

func firstPort(in *state.Inbound) uint16 {
	if in == nil {
		return 0
	}
	bindings, err := in.Bindings()
	if err != nil || len(bindings) == 0 {
		return 0
	}
	return bindings[0].Port
}

// panicked returns the fault that xray-core panicked. Another try may succeed: a panic can
// come from a race.
func panicked(tag, format string, args ...any) *fault.Fault {
	failure := fault.OnHost(tag, format, args...)
	failure.Stack = string(debug.Stack())
	return failure
}

// try executes one operation. A panic in xray-core becomes an error.
func (e *executor) try(op *state.Operation) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicked(op.Tag, "%s %q: panic in xray-core: %v", op.Kind, op.Tag, r)
		}
	}()
	if e.dryRun && !op.Runs {
		if err := members.Operation(op); err != nil {
			return err
		}
	}
	switch op.Kind {
	case state.OpPutOutbound:
		return e.putOutbound(op.Outbound)
	case state.OpRemoveOutbound:
		e.outbounds.Remove(op.Tag)
		return nil
	case state.OpDefaultOutbound:
		e.outbounds.SetDefault(op.Tag)
		return nil
	case state.OpSetRouting:
		return e.setRouting(op.Routing)
	case state.OpSetPolicy:
		return e.policy.Replace(context.Background(), op.Policy)
	case state.OpSetDNS:
		return e.dns.Replace(op.DNS)
	case state.OpAddInbound, state.OpReplaceInbound:
		return e.putInbound(op.Inbound, op.Users)
	case state.OpPrepareInbound:
		return e.prepareInbound(op.Inbound, op.Users)
	case state.OpOpenInbound:
		return e.openInbound(op.Inbound)
	case state.OpRemoveInbound:
		return e.removeInbound(op.Tag)
	case state.OpReleaseInbound:
		return e.releaseInbound(op.Tag)
	case state.OpUpdateUsers:
		return e.updateUsers(op.Tag, op.Users)
	case state.OpAddUsers:
		return e.addUsers(op.Tag, op.Users)
	case state.OpRemoveUsers:
		return e.removeUsers(op.Tag, op.Emails)
	default:
		return fmt.Errorf("operation %q is unknown to this worker", op.Kind)
	}
}

func (e *executor) putOutbound(want *state.Outbound) error {
	if want == nil {
		return errors.New("put outbound: none is given")
	}
	slot, err := e.slots.Slot(want.Slot)
	if err != nil {
		return err
	}
	handler, err := e.buildOutbound(want)
	if err != nil {
		return err
	}
	if !e.dryRun {
		if err := handler.Start(); err != nil {
			return fault.Caused(err, want.Tag, "start outbound %q: %v", want.Tag, err)
		}
	}
	e.outbounds.Put(features.NewCountedOutbound(handler, slot))
	return nil
}

func (e *executor) setRouting(raw json.RawMessage) error {
	files := geoFilesOf(raw)
	seen := fileVersions(files) // before they are read
	if e.geo.seen != "" && seen != e.geo.seen {
		_ = reloadGeoFiles() // a broken file that raw reads fails below
	}
	config, err := buildRouting(raw)
	if err != nil {
		return err
	}
	if err := e.router.Replace(config); err != nil {
		return fault.Caused(err, "", "replace routing: %v", err)
	}
	e.geo.routing, e.geo.seen = raw, seen
	if e.watch != nil {
		e.watchGeoFiles(files)
	}
	return nil
}

// geoRouting is the routing that runs.
type geoRouting struct {
	routing json.RawMessage
	seen    string // fileVersions of the geo files from which it was built
}

// watchGeoFiles watches the geo files of the routing. geoFilesChanged runs when they change.
func (e *executor) watchGeoFiles(files []string) {
	e.watch.Remove(geoWatch)
	if len(files) > 0 {
		e.watch.Add(geoWatch, func() { e.later(e.geoFilesChanged) }, files...)
	}
}

// geoFilesChanged makes the routing use the new geo files. If they are broken, it reports a
// notice, and the rules from the old files stay.
func (e *executor) geoFilesChanged() {
	files := geoFilesOf(e.geo.routing)
	seen := fileVersions(files)
	if seen == e.geo.seen {
		return
	}
	e.geo.seen = seen // before the reload, so that a broken file is reported once
	if err := reloadGeoFiles(); err != nil {
		e.tell(ipc.Notice{Message: fmt.Sprintf("the new geo files (%s) are not used, and the rules from the old files stay: %v", strings.Join(files, ", "), err)})
	}
}

// fileVersions returns a text that changes when the size or time of one of the files changes.
func fileVersions(files []string) string {
	var text strings.Builder
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			_, _ = fmt.Fprintln(&text, file, err)
			continue
		}
		_, _ = fmt.Fprintln(&text, file, info.Size(), info.ModTime().UnixNano())
	}
	return text.String()
}

func (e *executor) putInbound(want *state.Inbound, users []state.Client) error {
	if want == nil {
		return errors.New("put inbound: none is given")
	}
	handler, slots, err := e.makeReady(want, users)
	if err != nil {
		return err
	}
	before, replaces := e.shells[want.Tag]
	known := e.clients.Announce(*want, users, slots)
	if e.dryRun {
		e.inbounds.hold(handler)
	} else if err := e.inbounds.AddHandler(context.Background(), handler); err != nil {
		known.Undo()
		return startError(*want, err)
	}
	e.clients.Put(want.Tag, known.Known, known.KnownSlots)
	if replaces {
		e.clients.RemoveOthers(want.Tag, users)
		e.clients.EndUnknownAccounts(want.Tag)
		e.inbounds.associations.InboundChanged(before, *want, e.inbounds.holdsAssociation(want.Tag))
	}
	e.shells[want.Tag] = *want
	delete(e.prepared, want.Tag)
	return nil
}

// makeReady builds an inbound whose ports are free, and finds the slots of its users.
func (e *executor) makeReady(want *state.Inbound, users []state.Client) (inbound.Handler, []*counters.Slot, error) {
	handler, err := e.buildInbound(want, users, e.files)
	if err != nil {
		return nil, nil, err
	}
	slots, err := e.slotsOf(users)
	if err == nil {
		err = e.probe(*want)
	}
	if err != nil {
		return nil, nil, errors.Join(err, e.inbounds.end(handler))
	}
	return handler, slots, nil
}

// prepareInbound builds an inbound that does not listen yet, with its first users. addUsers adds the others,
// so that they need not be in memory all at once besides. An operation for it that fails drops it.
func (e *executor) prepareInbound(want *state.Inbound, users []state.Client) error {
	if want == nil {
		return errors.New("prepare inbound: none is given")
	}
	if _, runs := e.shells[want.Tag]; runs {
		return fmt.Errorf("prepare inbound %q: there is one already", want.Tag)
	}
	handler, slots, err := e.makeReady(want, users)
	if err != nil {
		return err
	}
	known := e.clients.Announce(*want, users, slots)
	e.inbounds.hold(handler)
	e.clients.Put(want.Tag, known.Known, known.KnownSlots)
	e.shells[want.Tag], e.prepared[want.Tag] = *want, true
	return nil
}

// openInbound lets an inbound listen that was prepared.
func (e *executor) openInbound(want *state.Inbound) error {
	if want == nil || !e.prepared[want.Tag] {
		return errors.New("open inbound: it was not prepared")
	}
	if err := e.inbounds.AddHandler(context.Background(), e.inbounds.letGo(want.Tag)); err != nil {
		return startError(*want, err)
	}
	delete(e.prepared, want.Tag)
	return nil
}

func (e *executor) removeInbound(tag string) error {
	if _, runs := e.shells[tag]; !runs {
		return nil
	}
	err := e.inbounds.RemoveHandler(context.Background(), tag)
	if errors.Is(err, common.ErrNoClue) { // a drained worker has closed its inbounds already
		err = nil
	}
	delete(e.shells, tag)
	delete(e.prepared, tag)
	e.clients.RemoveOthers(tag, nil)
	e.clients.EndAnonymous(tag)
	if err != nil {
		return fmt.Errorf("close inbound %q: %w", tag, err)
	}
	return nil
}

// releaseInbound closes the inbound's listener, so that another worker can listen there. The
// inbound's streams continue.
func (e *executor) releaseInbound(tag string) error {
	if err := e.inbounds.RemoveHandler(context.Background(), tag); err != nil && !errors.Is(err, common.ErrNoClue) {
		return fmt.Errorf("close inbound %q: %w", tag, err)
	}
	return nil
}

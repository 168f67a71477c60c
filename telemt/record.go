package telemt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/logkey"
	"nodeagent/telemt/api"
	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

// record is what the next daemon has to know of a telemt that runs. It is kept in the inbound's folder,
// readable by its owner only: it has the clients' secrets, as telemt's own file has.
type record struct {
	// Counters is Config.CountersEpoch: the bases mean nothing for another file of counters.
	Counters string               `json:"counters"`
	Release  process.Release      `json:"release"`
	Settings service.NodeSettings `json:"settings"`
	Started  time.Time            `json:"started"`
	// Running is what telemt runs, in Core's words and without the slots.
	Running service.Service `json:"running"`
	// Users has each client that is counted, by telemt's name.
	Users map[string]counted `json:"users"`
	// Reload is set while a new generation is asked for, whose counters begin at zero.
	Reload *reloading `json:"reload,omitempty"`
}

// counted is where the bytes of a user go. The slot has Base and what telemt says. So a daemon that
// knows Base knows from the slot what was read last: a byte is counted once, also where a daemon is
// killed between any two steps.
type counted struct {
	Slot uint32     `json:"slot"`
	Base api.Octets `json:"base"`
}

// reloading is a moment right before telemt was asked for a new generation.
type reloading struct {
	At     time.Duration `json:"at"`     // since the host started
	Uptime time.Duration `json:"uptime"` // of the generation before
}

// sinceBoot is a clock that all daemons of the host share, and that nobody sets.
func sinceBoot() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // never fails (clock_gettime(2))
	return time.Duration(now.Nano())
}

// begun reports whether the generation of a sample began after the reload was asked for. Half of the
// old generation's age is the tolerance for slow answers.
func (r *reloading) begun(s api.Sample, now time.Duration) bool {
	return s.Uptime < now-r.At+r.Uptime/2
}

// adoptable reports whether telemts outlive the daemon.
func (k *keeper) adoptable() bool { return k.deps.Octets != nil }

// keepRecord writes the record of the process, which runs running.
func (k *keeper) keepRecord(release process.Release, settings service.NodeSettings, started time.Time, running service.Desired) {
	if !k.adoptable() {
		return
	}
	settings.Disabled = nil
	raw, err := json.Marshal(record{
		Counters: k.config.CountersEpoch, Release: release, Settings: settings, Started: started,
		Running: service.Service{Inbounds: []service.Inbound{running.Inbound}, Upstreams: running.Upstreams, Advanced: running.Advanced},
		Users:   k.traffic.users, Reload: k.traffic.asked,
	})
	if err == nil {
		err = k.folder.WriteRecord(raw)
	}
	if err != nil {
		k.log.Error("keep what the next daemon has to know of telemt; it would start telemt again", logkey.Error, err)
	}
}

// beginRecord writes the record of a telemt that is about to start: what it counts begins at zero.
func (k *keeper) beginRecord(release process.Release, settings service.NodeSettings, to service.Desired) {
	if !k.adoptable() {
		return
	}
	k.traffic.setClients(to.Inbound)
	k.traffic.asked = nil
	for name, slot := range k.traffic.slots {
		k.traffic.users[name] = counted{slot, k.deps.octets(slot)}
	}
	k.keepRecord(release, settings, time.Now(), to)
}

// noteRecord writes the record of the process that runs.
func (k *keeper) noteRecord() {
	if k.process != nil {
		k.keepRecord(k.process.Release, k.process.Settings, k.process.Started, k.running)
	}
}

// adopt goes on with the telemt of the daemon before, which has the process id pid.
func (k *keeper) adopt(pid int) error {
	raw, err := k.folder.ReadRecord()
	if err != nil {
		return err
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("read what is known of it: %w", err)
	}
	if r.Counters != k.config.CountersEpoch {
		return errors.New("it was counted into another file of counters")
	}
	text, err := json.Marshal(r.Running)
	if err != nil {
		return fmt.Errorf("read what it runs: %w", err)
	}
	ran, err := service.Parse(text)
	if err != nil {
		return fmt.Errorf("read what it runs: %w", err)
	}
	if len(ran.Inbounds) != 1 {
		return errors.New("it is not known what it runs")
	}
	running := service.Desired{Inbound: ran.Inbounds[0], Upstreams: ran.Upstreams, Advanced: ran.Advanced}
	if err := k.assign(&running.Inbound, r.Users); err != nil {
		return err
	}
	p, err := process.Adopt(k.life, process.Known{PID: pid, Release: r.Release, Settings: r.Settings, Started: r.Started}, k.folder, running, k.log)
	if err != nil {
		return err
	}
	k.process, k.running = p, running
	k.takeUp(r)
	k.log.Info("the telemt of the daemon before goes on", logkey.PID, p.PID(), logkey.Version, r.Release.Version, logkey.Port, running.Inbound.Port)
	return nil
}

// assign gives the clients of an inbound that runs their slots, and the grants of Core's newest word. A
// client that came right before the daemon ended is not among the users yet: it has the slot that is
// desired. An error tells that telemt counts for a client of which it is not known where to.
func (k *keeper) assign(in *service.Inbound, users map[string]counted) error {
	desired := map[string]service.Client{}
	for _, c := range k.desired.Inbound.Clients {
		desired[c.ID] = c
	}
	for i, c := range in.Clients {
		user, known := users[in.UserName(c)]
		now, stays := desired[c.ID]
		switch {
		case !known && !stays:
			return fmt.Errorf("it is not known where the bytes of client %q count", c.ID)
		case known && stays && user.Slot != now.Slot:
			return fmt.Errorf("client %q counts into slot %d, and did into slot %d", c.ID, now.Slot, user.Slot)
		case !known:
			user.Slot = now.Slot
		}
		in.Clients[i].Slot, in.Clients[i].Grant = user.Slot, now.Grant
	}
	return nil
}

// takeUp goes on counting where the daemon before has ended. Where telemt's file is not what the telemt
// was left with, it is written again: it is not known how far the daemon before came with a change.
func (k *keeper) takeUp(r record) {
	k.traffic.setClients(k.running.Inbound)
	k.traffic.resume(r)
	settings := k.process.Settings
	settings.Disabled = k.shutOut(k.running.Inbound)
	k.shut, k.fileTables, k.acceptedAccess, k.fileText = settings.Disabled, nil, nil, nil
	k.uncertain, k.retryAt = true, time.Now()
	if text, err := k.running.Render(settings); err == nil {
		if has, number := k.folder.Written(); bytes.Equal(has, writtenText(number, text)) {
			k.writeCount, k.fileText = number, has
			k.fileTables = k.running.Configuration(settings)
			k.acceptedAccess, k.uncertain = k.fileTables["access"], false
		}
	}
	k.publish(StateReady, "")
}

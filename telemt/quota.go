package telemt

import (
	"maps"
	"slices"
	"time"

	"nodeagent/internal/grant"
	"nodeagent/internal/logkey"
	"nodeagent/telemt/service"
)

// countUsed adds what users have moved to what counts for their quotas, and keeps it on the disk.
// telemt's own count begins at zero again where telemt is killed: it saves at its end alone.
func (k *keeper) countUsed() {
	if len(k.traffic.fresh) == 0 {
		return
	}
	for name, gained := range k.traffic.fresh {
		k.used[name] += gained
	}
	clear(k.traffic.fresh)
	stays := map[string]bool{}
	for _, c := range k.running.Inbound.Clients {
		stays[k.running.Inbound.UserName(c)] = true
	}
	maps.DeleteFunc(k.used, func(name string, _ uint64) bool { return !stays[name] })
	if !slices.ContainsFunc(k.running.Inbound.Clients, func(c service.Client) bool { return c.QuotaBytes > 0 }) {
		return // kept in memory, for a quota that comes
	}
	if err := k.folder.WriteUsed(k.used); err != nil {
		k.log.Error("keep what counts for quotas; trying again", logkey.Error, err)
	}
}

// shutOut returns the user names of the clients that the file has as disabled although they are
// clients: their time is over, or their quota is used up.
func (k *keeper) shutOut(in service.Inbound) []string {
	shut := service.ExpiredUsers(in, time.Now())
	for _, c := range in.Clients {
		name := in.UserName(c)
		over := c.QuotaBytes > 0 && k.used[name] >= uint64(c.QuotaBytes) || c.Grant != nil && k.grantOver(c.Grant)
		if over && !slices.Contains(shut, name) {
			shut = append(shut, name)
		}
	}
	return shut
}

// grantsEvery is how often the counters are read while a client has a grant. What a client moves in
// that time, and until telemt has taken its changed file, comes on top of what was granted.
const grantsEvery = 300 * time.Millisecond

// clockLook is how often a keeper that waits for a client's end reads the wall clock.
const clockLook = time.Second

// grantOver reports whether a grant is used up or expired. A grant that is, stays so, also where the
// counters of its last bytes are still to come.
func (k *keeper) grantOver(g *grant.Grant) bool { return g.Over(k.deps.Counted(g.Slot), time.Now()) }

// hasGrants reports whether a client of the telemt that runs has a grant.
func (k *keeper) hasGrants() bool {
	return k.process != nil && slices.ContainsFunc(k.running.Inbound.Clients, func(c service.Client) bool { return c.Grant != nil })
}

// enforceGrants ends the sessions of clients whose grant is over: by what they moved here, or over
// other inbounds.
func (k *keeper) enforceGrants() {
	if !k.hasGrants() {
		return
	}
	if k.readCounters(k.life) {
		k.enforceQuotas()
	}
}

// enforceQuotas ends the sessions of clients whose quota was used up since the file was written.
func (k *keeper) enforceQuotas() {
	k.countUsed()
	if slices.Equal(k.shutOut(k.running.Inbound), k.shut) {
		return
	}
	if err := k.applyLive(k.life, k.running.Inbound, k.running); err != nil && k.life.Err() == nil {
		k.log.Error("end the sessions of a client whose quota is used up; trying again", logkey.Error, err)
	}
}

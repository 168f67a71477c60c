package telemt

import (
	"maps"
	"slices"
	"time"

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
		if c.QuotaBytes > 0 && k.used[name] >= uint64(c.QuotaBytes) && !slices.Contains(shut, name) {
			shut = append(shut, name)
		}
	}
	return shut
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

package importer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"nodeagent/coreapi"
)

const (
	maxName  = 100    // bytes that Core takes of a name
	maxNote  = 10_000 // and of a note
	maxText  = 1000   // and of a text of a credential
	noFlow   = "none"
	noGroup  = "none"
	maxParts = 2000 // inbounds and groups
)

// finish makes of a panel what Core adds.
func (p *panel) finish(o Options) (Read, error) {
	r := Read{Import: coreapi.Import{Node: o.Node, Protocols: []coreapi.ImportProtocol{}, Groups: []coreapi.ImportGroup{}, Users: []coreapi.ImportUser{}}}
	byTag, err := p.finishInbounds(&r)
	if err != nil {
		return r, err
	}
	p.checkLogins(byTag)
	p.chooseFlows(byTag)
	names, owners, groups := map[string]bool{}, p.owners(), map[string]string{}
	for i, person := range p.people {
		user := coreapi.ImportUser{NewUser: coreapi.NewUser{Name: p.nameOf(person, o.Prefix, i, names)}, Origin: p.originOf(person)}
		if note := clean(person.note, maxNote); note != "" {
			user.Note = &note
		}
		for kind, value := range person.contact {
			if value = printable(value, maxNote); value != "" {
				if user.Contact == nil {
					user.Contact = map[string]string{}
				}
				user.Contact[kind] = value
			}
		}
		sub := person.sub
		for _, id := range person.uuids {
			if owners[id] == i+1 {
				sub.UUID = id
				break
			}
		}
		sub.Credentials = credentials(person.logins, sub.UUID, byTag)
		if sub.Group, err = p.groupOf(&r, o.Node, person.logins, groups); err != nil {
			return r, err
		}
		user.Subscriptions = []coreapi.ImportSubscription{sub}
		r.Import.Users = append(r.Import.Users, user)
	}
	for i, in := range r.Import.Protocols {
		r.Import.Protocols[i].Flow = byTag[in.Tag].flow
	}
	r.Left, r.Notes = p.left, p.notes
	return r, nil
}

// finishInbounds makes Core's form of the inbounds. It returns them by their tags, with those that
// the panel does not describe and that are on the node already.
func (p *panel) finishInbounds(r *Read) (map[string]*inbound, error) {
	byTag := map[string]*inbound{}
	for _, in := range p.inbounds {
		in.tag = clean(in.tag, maxName)
		if _, err := strconv.Atoi(in.tag); err == nil || in.tag == "" {
			in.tag = "inbound-" + in.tag + strconv.Itoa(len(byTag)+1)
		}
		if byTag[in.tag] != nil {
			return nil, fmt.Errorf("two inbounds have the tag %q: rename one of them in the panel", in.tag)
		}
		if len(byTag) == maxParts {
			return nil, fmt.Errorf("there are more than %d inbounds", maxParts)
		}
		byTag[in.tag] = in
		in.config["tag"] = in.tag
		raw, err := json.Marshal(in.config)
		if err != nil {
			return nil, fmt.Errorf("inbound %s: %w", in.tag, err)
		}
		r.Import.Protocols = append(r.Import.Protocols, coreapi.ImportProtocol{Tag: in.tag, Inbound: raw, Note: clean(in.note, maxNote), Disabled: in.disabled, Hosts: in.hosts})
	}
	return byTag, nil
}

// checkLogins removes what an inbound could not take: two clients that could not be told apart, and
// credentials that the protocol does not have.
func (p *panel) checkLogins(byTag map[string]*inbound) {
	seen := map[string]string{} // who has a credential
	for _, person := range p.people {
		person.logins = slices.DeleteFunc(person.logins, func(l login) bool {
			reason := wrongCredential(l, byTag[l.tag])
			if reason == "" {
				key := l.tag + "\x00" + identity(l)
				if other, there := seen[key]; there {
					reason = "the client " + printable(other, maxName) + " has the same credential there"
				} else {
					seen[key] = person.name
				}
			}
			if reason != "" {
				p.leave("client", person.name, fmt.Sprintf("on inbound %s: %s", l.tag, reason))
			}
			return reason != ""
		})
	}
}

// identity is what tells the clients of an inbound apart.
func identity(l login) string {
	switch l.Protocol {
	case "vless", "vmess":
		return canonical(l.ID)
	case "socks", "http", "mixed":
		return l.ID
	case "wireguard":
		return l.PublicKey
	}
	return l.Password
}

// canonical returns a UUID in the form that Core stores; another text stays as it is.
func canonical(id string) string {
	if len(id) == 32 || len(id) == 36 {
		if parsed, err := uuid.Parse(id); err == nil {
			return parsed.String()
		}
	}
	return id
}

// chooseFlows gives each VLESS inbound the flow that most of its clients have. Clients of an inbound
// that can't have a flow have none.
func (p *panel) chooseFlows(byTag map[string]*inbound) {
	with := map[string]int{}
	for _, person := range p.people {
		for i := range person.logins {
			l := &person.logins[i]
			in := byTag[l.tag]
			switch {
			case l.Protocol != "vless" || in != nil && !in.vision:
				l.Flow = ""
			case l.Flow == "":
				with[l.tag]--
			default:
				with[l.tag]++
			}
		}
	}
	for _, person := range p.people {
		for i := range person.logins {
			if l := &person.logins[i]; l.Flow != "" && with[l.tag] > 0 && byTag[l.tag] != nil {
				byTag[l.tag].flow = l.Flow
			}
		}
	}
}

// owners says which person gets a UUID for the own one: the number of the first who has it, plus
// one.
func (p *panel) owners() map[string]int {
	owners := map[string]int{}
	for i, person := range p.people {
		for n, id := range person.uuids {
			parsed, err := uuid.Parse(id)
			if err != nil || parsed == uuid.Nil || len(id) != 36 {
				person.uuids[n] = ""
				continue
			}
			person.uuids[n] = parsed.String()
			if owners[person.uuids[n]] == 0 {
				owners[person.uuids[n]] = i + 1
			}
		}
	}
	delete(owners, "")
	return owners
}

// credentials returns what the logins have that is not derived from the UUID: what most inbounds of
// a protocol have in common once, and the rest by the inbound.
func credentials(logins []login, id string, byTag map[string]*inbound) (all []coreapi.ImportCredential) {
	common := map[string]coreapi.Credential{} // by protocol
	for _, l := range logins {
		own, flow := ownOf(l, id, byTag[l.tag])
		first, there := common[l.Protocol]
		if !there {
			first, common[l.Protocol] = own, own
			if bare := (coreapi.Credential{Protocol: l.Protocol}); !same(own, bare) {
				all = append(all, coreapi.ImportCredential{Credential: own})
			}
		}
		if flow != "" || !same(own, first) {
			own.Flow = flow
			all = append(all, coreapi.ImportCredential{Tag: l.tag, Credential: own})
		}
	}
	return all
}

func same(a, b coreapi.Credential) bool {
	allowed := slices.Equal(a.AllowedIPs, b.AllowedIPs)
	a.AllowedIPs, b.AllowedIPs = nil, nil
	rawA, _ := json.Marshal(a) // texts and numbers always marshal
	rawB, _ := json.Marshal(b)
	return allowed && string(rawA) == string(rawB)
}

// ownOf returns what a login has beside what is derived from the UUID, and the flow where that is
// another than the inbound's.
func ownOf(l login, id string, in *inbound) (own coreapi.Credential, flow string) {
	own = l.Credential
	own.Flow = ""
	if l.Protocol == "vless" || l.Protocol == "vmess" {
		if id != "" && canonical(own.ID) == id {
			own.ID = ""
		}
	}
	if id != "" && own.Password == id {
		own.Password = ""
	}
	if in == nil { // it is on the node already, with a flow and a method that are not known here
		if l.Protocol == "vless" && l.Flow != "" {
			flow = l.Flow
		}
		return own, flow
	}
	if own.Method == in.method {
		own.Method = ""
	}
	if l.Flow != in.flow && in.vision {
		if flow = l.Flow; flow == "" {
			flow = noFlow
		}
	}
	return own, flow
}

// nameOf returns the name of a user: the panel's, as Core takes names.
func (p *panel) nameOf(person *person, prefix string, i int, taken map[string]bool) string {
	name := clean(prefix+person.name, maxName)
	if name == "" {
		name = fmt.Sprintf("unnamed-%d", i+1)
	}
	if _, err := strconv.Atoi(name); err == nil {
		name = "user-" + name // a number would be taken for an id
	}
	whole := name
	for n := 2; taken[name]; n++ {
		end := "-" + strconv.Itoa(n)
		name = cut(whole, maxName-len(end)) + end
	}
	taken[name] = true
	if name != prefix+person.name {
		p.notes = append(p.notes, fmt.Sprintf("user %q is named %q: Core does not take the name as it is", printable(person.name, maxName), name))
	}
	return name
}

// clean returns a text without control characters and spaces around it, cut to so many bytes.
func clean(value string, most int) string { return strings.TrimSpace(printable(value, most)) }

// originOf names a user of a panel for ever, so that a second import finds the user.
func (p *panel) originOf(person *person) string {
	name := person.origin
	if name == "" {
		name = person.name
	}
	origin := p.kind + " " + p.id + " " + name
	if len(origin) > 2*maxName || printable(origin, len(origin)) != origin {
		sum := sha256.Sum256([]byte(name))
		origin = p.kind + " " + p.id + " " + hex.EncodeToString(sum[:])
	}
	return origin
}

// groupOf returns the name of the group that reaches the inbounds of the logins, and adds the group.
// It reaches nothing else, so that a user gets no inbound that the panel did not give.
func (p *panel) groupOf(r *Read, node string, logins []login, known map[string]string) (string, error) {
	var tags []string
	for _, l := range logins {
		tags = append(tags, l.tag)
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	key := strings.Join(tags, "\x00")
	if name, there := known[key]; there {
		return name, nil
	}
	if len(known) == maxParts {
		return "", fmt.Errorf("the users are on more than %d different sets of inbounds", maxParts)
	}
	name := p.kind + " " + node + ": " + strings.Join(tags, ", ")
	if len(tags) == 0 {
		name, tags = p.kind+" "+node+": "+noGroup, []string{}
	}
	if len(name) > maxName {
		sum := sha256.Sum256([]byte(key))
		end := fmt.Sprintf("… %d (%s)", len(tags), hex.EncodeToString(sum[:4]))
		name = cut(name, maxName-len(end)) + end
	}
	known[key] = name
	r.Import.Groups = append(r.Import.Groups, coreapi.ImportGroup{Name: name, Note: "the inbounds of users who were imported", Tags: tags})
	return name, nil
}

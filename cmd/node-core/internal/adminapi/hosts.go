package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

// hostIn names a host in a path.
type hostIn struct {
	ID int64 `path:"host" doc:"Id of the host."`
}

func registerHosts(a api) {
	s := a.server
	read(a, operation{id: "host-list", method: http.MethodGet, path: "/hosts", noun: "hosts", summary: "List what links say in the place of an inbound's own", role: coreapi.ReadOnly},
		func(ctx context.Context, in *struct {
			Protocol string `query:"protocol" doc:"Id of an inbound, or NODE/TAG: only that one's."`
		},
		) ([]corestore.Host, error) {
			if in.Protocol == "" {
				return s.store.Hosts(ctx, 0)
			}
			id, err := s.knownProtocol(ctx, in.Protocol)
			if err != nil {
				return nil, err
			}
			return s.store.Hosts(ctx, id)
		})
	read(a, operation{id: "host-show", method: http.MethodGet, path: "/hosts/{host}", noun: "hosts", summary: "Show a host", role: coreapi.ReadOnly, etag: corestore.KindHost},
		func(ctx context.Context, in *hostIn) (corestore.Host, error) { return s.store.Host(ctx, in.ID) })
	read(a, operation{id: "host-add", method: http.MethodPost, path: "/hosts", noun: "hosts", summary: "Add a link to an inbound, in the place of its own; nodes do not know of it", role: coreapi.Operator, status: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body coreapi.NewHost }) (corestore.Host, error) {
			return s.hostAdd(ctx, in.Body)
		})
	read(a, operation{id: "host-edit", method: http.MethodPatch, path: "/hosts/{host}", noun: "hosts", summary: "Change a host; nodes do not know of it", role: coreapi.Operator, etag: corestore.KindHost},
		func(ctx context.Context, in *struct {
			ID   int64 `path:"host" doc:"Id of the host."`
			Body coreapi.HostEdit
		},
		) (corestore.Host, error) {
			return s.store.EditHost(ctx, in.ID, func(h *corestore.Host) error { return setHost(h, in.Body) })
		})
	read(a, operation{id: "host-remove", method: http.MethodDelete, path: "/hosts/{host}", noun: "hosts", summary: "Remove a host", role: coreapi.Operator, etag: corestore.KindHost},
		func(ctx context.Context, in *hostIn) (coreapi.Removed, error) {
			return coreapi.Removed{Removed: fmt.Sprint(in.ID)}, s.store.RemoveHost(ctx, in.ID)
		})
}

func (s *Server) hostAdd(ctx context.Context, args coreapi.NewHost) (corestore.Host, error) {
	id, err := s.knownProtocol(ctx, args.Protocol)
	if err != nil {
		return corestore.Host{}, err
	}
	h := corestore.Host{ProtocolID: id}
	h.Enabled = true
	if err := setHost(&h, args.HostEdit); err != nil {
		return h, err
	}
	return s.store.AddHost(ctx, h)
}

// setHost sets what is given, and refuses what no link can say.
func setHost(h *corestore.Host, edit coreapi.HostEdit) error {
	set(&h.Enabled, edit.Enabled)
	set(&h.Position, edit.Position)
	set(&h.Port, edit.Port)
	for _, text := range []struct {
		name string
		to   *string
		from *string
	}{
		{"remark", &h.Remark, edit.Remark},
		{"address", &h.Address, edit.Address},
		{"server name", &h.SNI, edit.SNI},
		{"fingerprint", &h.Fingerprint, edit.Fingerprint},
		{"HTTP host", &h.HTTPHost, edit.HTTPHost},
		{"path", &h.Path, edit.Path},
		{"ALPN", &h.ALPN, edit.ALPN},
		{"security", &h.Security, edit.Security},
	} {
		set(text.to, text.from)
		if len(*text.to) > maxTag || strings.ContainsFunc(*text.to, unicode.IsControl) {
			return badInput{fmt.Errorf("the %s has %d bytes, or control characters: want at most %d bytes without", text.name, len(*text.to), maxTag)}
		}
	}
	switch {
	case h.Port < 0 || h.Port > 65535:
		return badInput{fmt.Errorf("port %d is out of range: want 1 to 65535, or 0 for the inbound's own", h.Port)}
	case h.Security != "" && h.Security != "none" && h.Security != "tls":
		return badInput{fmt.Errorf("security %q is none of a host: want none, tls, or nothing for the inbound's own", h.Security)}
	case strings.ContainsAny(h.Address, " /?#@\"<>\\"):
		return badInput{errors.New("the address is neither a host name nor an IP address")}
	}
	if err := nodeconfig.CheckRemark(h.Remark); err != nil {
		return badInput{err}
	}
	return nil
}

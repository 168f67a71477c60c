package nodeapi

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
)

// register issues the auth key of the node whose code the body has.
func (a *API) register(r *request) (any, error) {
	var body struct {
		Code   *string `json:"code"`
		Name   *string `json:"name"`
		Host   *string `json:"host"`
		IP     *string `json:"ip"`
		Region *string `json:"region"`
	}
	if err := readBody(r, &body, maxSmallBody); err != nil {
		return nil, err
	}
	for field, value := range map[string]*string{"code": body.Code, "name": body.Name, "host": body.Host, "ip": body.IP, "region": body.Region} {
		switch {
		case value == nil:
			return nil, problem.InField(field, "it is missing")
		case len(*value) > maxTag:
			return nil, problem.InField(field, fmt.Sprintf("want at most %d bytes", maxTag))
		}
	}
	if *body.IP != "" && !isIP(*body.IP) {
		return nil, problem.InField("ip", "it is not an IP address")
	}
	id, key, err := a.store.Register(r.Context(), wire.RegisterRequest{
		Code: *body.Code, Name: *body.Name, Host: *body.Host, IP: *body.IP, Region: *body.Region,
	}, r.idempotencyKey)
	switch {
	case errors.Is(err, corestore.ErrCodeUnknown):
		return nil, problem.New(http.StatusForbidden, "code_unknown", err.Error())
	case errors.Is(err, corestore.ErrCodeExpired):
		return nil, problem.New(http.StatusForbidden, "code_expired", err.Error())
	case errors.Is(err, corestore.ErrCodeUsed):
		return nil, problem.New(http.StatusForbidden, "code_used", err.Error())
	case err != nil:
		return nil, err
	}
	a.log.Info("node registered", logkey.Node, id, logkey.Host, *body.Host, logkey.IP, *body.IP)
	return wire.RegisterResponse{AuthKey: key, NodeID: wire.NodeID(strconv.FormatInt(id, 10))}, nil
}

package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/internal/logkey"
)

func registerTokens(a api) {
	s := a.server
	read(a, operation{id: "caller", method: http.MethodGet, path: "/caller", noun: "tokens", summary: "Show who sends this request", role: coreapi.ReadOnly},
		func(ctx context.Context, _ *struct{}) (coreapi.Caller, error) {
			who := callerOf(ctx)
			return coreapi.Caller{Name: who.name, Role: who.role}, nil
		})
	read(a, operation{id: "token-list", method: http.MethodGet, path: "/tokens", noun: "tokens", summary: "List the tokens, without their secrets", role: coreapi.Owner},
		func(ctx context.Context, _ *struct{}) ([]corestore.Token, error) { return s.store.Tokens(ctx) })
	read(a, operation{id: "token-add", method: http.MethodPost, path: "/tokens", noun: "tokens", summary: "Add a token; its secret is shown only this time", role: coreapi.Owner, status: http.StatusCreated, secret: true},
		func(ctx context.Context, in *struct{ Body coreapi.NewToken }) (coreapi.TokenAdded, error) {
			return s.tokenAdd(ctx, in.Body)
		})
	read(a, operation{id: "token-remove", method: http.MethodDelete, path: "/tokens/{token}", noun: "tokens", summary: "Remove a token; no later request with it is answered", role: coreapi.Owner},
		func(ctx context.Context, in *struct {
			Token string `path:"token" doc:"Name or id of the token."`
		},
		) (coreapi.Removed, error) {
			t, err := s.store.RemoveToken(ctx, in.Token)
			return coreapi.Removed{Removed: t.Name}, err
		})
}

func (s *Server) tokenAdd(ctx context.Context, args coreapi.NewToken) (added coreapi.TokenAdded, err error) {
	if err := checkName("token", args.Name); err != nil {
		return added, err
	}
	if args.Name == socketCaller {
		return added, badInput{fmt.Errorf("no token can have the name %q: the audit log calls the unix socket so", socketCaller)}
	}
	if !args.Role.May(coreapi.ReadOnly) {
		return added, badInput{fmt.Errorf("role %q is unknown: want one of %s", args.Role, joined(coreapi.Roles()))}
	}
	token := corestore.Token{Name: args.Name, Role: args.Role, CreatedBy: callerOf(ctx).name}
	if token.ExpiresAt, err = expiryOf(args.Expiry); err != nil {
		return added, err
	}
	added.Pin = s.pin
	added.Token, added.Secret, err = s.store.AddToken(ctx, token)
	return added, err
}

// expiryOf returns when a token expires; nil for never.
func expiryOf(e *coreapi.Expiry) (*time.Time, error) {
	switch {
	case e == nil || e.At == nil && e.AfterSeconds == 0:
		return nil, nil
	case e.FromFirstUse || e.At != nil && e.AfterSeconds != 0 || e.AfterSeconds < 0 || e.AfterSeconds > maxLife:
		return nil, badInput{errors.New("a token expires at a time, or after a while that begins now")}
	case e.At != nil:
		at := e.At.UTC()
		return &at, nil
	}
	at := time.Now().UTC().Add(time.Duration(e.AfterSeconds) * time.Second)
	return &at, nil
}

func joined(roles []coreapi.Role) string {
	var names []string
	for _, r := range roles {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// answerTime bounds how long a client may take to read an answer, on top of the time for which
// it is held.
const answerTime = coreapi.MaxWait + 5*time.Minute

// TokenHandler serves the API for the network: a request needs a token. The OpenAPI document
// and its page are for everybody; they are the same for each Core of this version.
func (s *Server) TokenHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // not every writer of a test has one
		if isDocument(r) {
			s.routes.ServeHTTP(w, r)
			return
		}
		who, problem := s.authenticate(r)
		if problem != nil {
			w.Header().Set("WWW-Authenticate", `Bearer realm="node-core"`)
			writeProblem(w, problem)
			return
		}
		s.routes.ServeHTTP(w, r.WithContext(withCaller(r.Context(), who)))
	})
}

// authenticate finds out whose token a request has.
func (s *Server) authenticate(r *http.Request) (caller, *coreapi.Problem) {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return caller{}, newProblem(http.StatusUnauthorized, coreapi.CodeNoToken, "the request has no header 'Authorization: Bearer TOKEN'; 'node-core token add' makes a token")
	}
	token, err := s.store.TokenOf(r.Context(), strings.TrimSpace(secret))
	switch {
	case errors.Is(err, corestore.ErrNotFound):
		return caller{}, newProblem(http.StatusUnauthorized, coreapi.CodeUnknownToken, "this Core has no such token: it was removed, or is of another Core")
	case err != nil:
		// The caller is not known yet, and the database's error names its host and user.
		if r.Context().Err() == nil {
			s.log.Error("find out whose token a request has", logkey.Error, err)
		}
		return caller{}, newProblem(http.StatusInternalServerError, coreapi.CodeInternal, "this Core can't read its database now, and so can't say whose token this is; its log says why")
	case token.ExpiresAt != nil && !token.ExpiresAt.After(time.Now()):
		return caller{}, newProblem(http.StatusUnauthorized, coreapi.CodeExpiredToken, fmt.Sprintf("the token %s expired at %s", token.Name, token.ExpiresAt.Format(time.RFC3339)))
	}
	return caller{name: token.Name, role: token.Role}, nil
}

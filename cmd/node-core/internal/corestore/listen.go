package corestore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"nodeagent/coreclient/wire"
)

// News says what instances do with news of each other. The functions return at once.
type News struct {
	Changed  func(nodes ...int64) // these nodes have another configuration, key or address of Core
	Reported func(node int64)     // the node has said something
	Happened func()               // there is another event
	Failed   func(error)          // the news are interrupted; Listen goes on
}

const (
	channel = "node_core" // the triggers of migrations/postgres name it
	// listenSilence is how long a silent connection is taken for alive.
	listenSilence = 20 * time.Second
	// listenProbe bounds how long a message of this instance itself takes to come back.
	listenProbe = 10 * time.Second
	// listenRetry is how long Listen waits after an error, at most twice that.
	listenRetry = time.Second
)

// Listen tells of what other instances change on the same PostgreSQL, until ctx ends. On SQLite
// there are none, and it returns. It keeps one connection, which must not lead through a pooler
// that gives each transaction another one: see Postgres.Direct.
//
// The database sends the news with the commit of each change, so that the end of the instance
// that has made the change loses none. What is changed while the connection is broken is found
// by comparing all revisions after that.
func (s *Store) Listen(ctx context.Context, news News) {
	if s.direct == nil {
		return
	}
	l := listener{store: s, news: news}
	for ctx.Err() == nil {
		if err := l.run(ctx); err != nil && ctx.Err() == nil {
			news.Failed(err)
		}
		_ = sleep(ctx, listenRetry+mathrand.N(listenRetry))
	}
}

type listener struct {
	store *Store
	news  News
	// revisions has what this instance knows of each node; nil before the first connection.
	revisions map[int64]int64
}

func (l *listener) run(ctx context.Context) (err error) {
	conn, err := pgx.ConnectConfig(ctx, l.store.direct)
	if err != nil {
		return openPostgresError(l.store.direct, err)
	}
	defer func() { err = errors.Join(err, closeNow(ctx, conn)) }()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listen to other instances: %w", err)
	}
	// From here on nothing is missed: what was before is compared.
	if err := l.compare(ctx); err != nil {
		return fmt.Errorf("look for missed changes: %w", err)
	}
	if err := l.probe(ctx, conn); err != nil {
		return err
	}
	l.store.known.hear(true)
	defer l.store.known.hear(false)
	for {
		waiting, cancel := context.WithTimeout(ctx, listenSilence)
		note, err := conn.WaitForNotification(waiting)
		cancel()
		switch {
		case err == nil:
			l.take(ctx, note.Payload)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			if err := l.probe(ctx, conn); err != nil {
				return err
			}
		default:
			return fmt.Errorf("listen to other instances: %w", err)
		}
	}
}

// probe shows that messages arrive: it sends one on another connection and waits for it. A pooler that
// gives each transaction another connection answers LISTEN, and passes no message on.
func (l *listener) probe(ctx context.Context, conn *pgx.Conn) error {
	waiting, cancel := context.WithTimeout(ctx, listenProbe)
	defer cancel()
	message := "probe " + rand.Text() // take ignores it at other instances
	if _, err := l.store.write.ExecContext(waiting, `SELECT pg_notify(?, ?)`, channel, message); err != nil {
		return fmt.Errorf("send a message to this instance itself: %w", err)
	}
	for {
		note, err := conn.WaitForNotification(waiting)
		switch {
		case err == nil && note.Payload == message:
			return nil
		case err == nil:
			l.take(ctx, note.Payload)
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("listen to other instances at %s: no message arrived within %s; where that is a pooler, name PostgreSQL itself with --database-direct",
				nameOf(l.store.direct), listenProbe)
		default:
			return fmt.Errorf("listen to other instances: %w", err)
		}
	}
}

// closeNow closes a connection without waiting for the other side for long.
func closeNow(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // it is given up
	return nil
}

// compare tells of the nodes whose revision is not the known one, and reads the identity again.
func (l *listener) compare(ctx context.Context) error {
	if err := l.identity(ctx); err != nil {
		return err
	}
	type node struct{ id, revision int64 }
	rows, err := l.store.read.QueryContext(ctx, `SELECT id, `+wanted+` FROM nodes`)
	all, err := collect(rows, err, func(r *sql.Rows) (n node, err error) { return n, r.Scan(&n.id, &n.revision) })
	if err != nil {
		return err
	}
	before := l.revisions
	l.revisions = make(map[int64]int64, len(all))
	for _, n := range all {
		l.revisions[n.id] = n.revision
		if before != nil {
			if before[n.id] != n.revision {
				l.news.Changed(n.id)
			}
			l.news.Reported(n.id) // a command looks again
		}
	}
	l.news.Happened()
	return nil
}

// identity reads who this Core is. An address that nodes are to try is news for all of them.
func (l *listener) identity(ctx context.Context) error {
	before := l.store.Identity()
	if err := l.store.reloadIdentity(ctx); err != nil {
		return fmt.Errorf("read Core's identity: %w", err)
	}
	if l.store.Identity() != before {
		for id := range l.revisions {
			l.news.Changed(id)
		}
	}
	return nil
}

// take reads one message of a trigger: "changed NODE REVISION", "reported NODE REVISION", "core",
// "event".
func (l *listener) take(ctx context.Context, message string) {
	words := strings.Fields(message)
	if len(words) == 1 && words[0] == "core" {
		if err := l.identity(ctx); err != nil && ctx.Err() == nil {
			l.news.Failed(err)
		}
		return
	}
	if len(words) == 1 && words[0] == "event" {
		l.news.Happened()
		return
	}
	if len(words) != 3 {
		return // of a later version
	}
	node, errNode := strconv.ParseInt(words[1], 10, 64)
	revision, errRevision := strconv.ParseInt(words[2], 10, 64)
	if errNode != nil || errRevision != nil {
		return
	}
	switch words[0] {
	case "changed":
		l.revisions[node] = revision
		l.store.known.forget(node)
		l.news.Changed(node)
	case "reported":
		l.store.known.forget(node)
		l.news.Reported(node)
	}
}

func (s *Store) reloadIdentity(ctx context.Context) error {
	var c wire.CoreIdentity
	if err := s.read.QueryRowContext(ctx, `SELECT id, epoch, next_url FROM core`).Scan(&c.ID, &c.Epoch, &c.NextURL); err != nil {
		return err
	}
	s.identity.Store(&c)
	return s.loadTimezone(ctx)
}

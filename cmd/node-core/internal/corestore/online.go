package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// noteOnline changes the table of online clients as an event says. Events of one node come in the
// order in which they happened; one that comes again changes nothing.
func noteOnline(ctx context.Context, tx *sql.Tx, nodeID int64, e wire.SessionEvent) error {
	var err error
	switch e.EventType {
	case wire.Online:
		_, err = tx.ExecContext(ctx, `INSERT INTO online_sessions (node_id, user_id, protocol, ip_address, since) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			nodeID, e.UserID, string(e.Protocol), e.IPAddress, millis(e.OccurredAt))
	case wire.Offline:
		_, err = tx.ExecContext(ctx, `DELETE FROM online_sessions WHERE node_id = ? AND user_id = ? AND protocol = ? AND ip_address = ? AND since <= ?`,
			nodeID, e.UserID, string(e.Protocol), e.IPAddress, millis(e.OccurredAt))
	}
	if err != nil {
		return fmt.Errorf("store who is online: %w", err)
	}
	return nil
}

// SessionFilter says which sessions are listed.
type SessionFilter struct {
	NodeID int64 // 0 for all
	UserID int64 // 0 for all
	Limit  int
}

// Online returns who is online, as the nodes said last.
func (s *Store) Online(ctx context.Context, f SessionFilter) ([]coreapi.Session, error) {
	where, args := "1 = 1", []any{}
	if f.NodeID != 0 {
		where, args = where+" AND o.node_id = ?", append(args, f.NodeID)
	}
	if f.UserID != 0 {
		where, args = where+" AND o.user_id = ?", append(args, f.UserID)
	}
	rows, err := s.read.QueryContext(ctx, `SELECT o.node_id, nodes.name, nodes.status, `+lastSeen+`, o.user_id, coalesce(u.name, ''), o.protocol, o.ip_address, o.since
		FROM online_sessions o JOIN nodes ON nodes.id = o.node_id LEFT JOIN users u ON u.id = o.user_id
		WHERE `+where+` ORDER BY o.node_id, o.user_id, o.protocol, o.ip_address LIMIT ?`, append(args, f.Limit)...)
	return collect(rows, err, func(r *sql.Rows) (row coreapi.Session, err error) {
		var since int64
		var seen sql.NullInt64
		var protocol string
		err = r.Scan(&row.NodeID, &row.Node, &row.NodeStatus, &seen, &row.UserID, &row.User, &protocol, &row.IPAddress, &since)
		row.Protocol, row.Since = wire.VpnProtocol(protocol), time.UnixMilli(since).UTC()
		if at := fromMillis(seen); at == nil || time.Since(*at) > OfflineAfter {
			row.NodeStatus = "offline"
		}
		return row, err
	})
}

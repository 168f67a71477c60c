package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"nodeagent/cmd/node-core/internal/periods"
	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// budgetPeriod is how often a node's budget begins anew.
func budgetPeriod(day int64, zone *time.Location) periods.Period {
	return periods.Period{Kind: periods.Rolling, Day: int(day), Zone: zone}
}

// setBudget begins to count for a node's budget, or ends it where the node has none. What the node
// has moved in the budget's month is read from its usage rows.
func (s *Store) setBudget(ctx context.Context, tx *sql.Tx, n Node, now time.Time) error {
	if n.BudgetBytes == 0 {
		_, err := tx.ExecContext(ctx, `DELETE FROM node_budgets WHERE node_id = ?`, n.ID)
		return err
	}
	// A batch that is being stored is either among the rows that are read, or counted after that.
	if err := s.dialect.lockUsage(ctx, tx); err != nil {
		return err
	}
	p := budgetPeriod(n.BudgetDay, s.Timezone())
	start, end := p.Start(now), p.Next(now)
	used, err := movedSince(ctx, tx, n.ID, start)
	if err != nil {
		return err
	}
	var before budgetState
	var began int64
	err = tx.QueryRowContext(ctx, `SELECT warned, spent, starts_at FROM node_budgets WHERE node_id = ?`, n.ID).Scan(&before.warned, &before.spent, &began)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("read the budget of node %d: %w", n.ID, err)
	}
	if began != millis(start) {
		before = budgetState{} // the month of another budget
	}
	after := budgetState{isWarned(used, n.BudgetBytes, n.BudgetWarnPercent), used >= n.BudgetBytes}
	_, err = tx.ExecContext(ctx, `INSERT INTO node_budgets (node_id, used, starts_at, ends_at, warned, spent) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (node_id) DO UPDATE SET used = excluded.used, starts_at = excluded.starts_at, ends_at = excluded.ends_at, warned = excluded.warned, spent = excluded.spent`,
		n.ID, used, millis(start), millis(end), after.warned, after.spent)
	if err != nil {
		return fmt.Errorf("store the budget of node %d: %w", n.ID, err)
	}
	return s.tellBudget(ctx, tx, n.ID, before, after, budgetTold{n.BudgetBytes, used, n.BudgetAction})
}

// budgetState is how far a budget is used up in its month: to the share at which Core warns, and whole.
type budgetState struct{ warned, spent bool }

// budgetTold is the data of events of budgets.
type budgetTold struct {
	BudgetBytes int64  `json:"budgetBytes"`
	UsedBytes   int64  `json:"usedBytes"`
	Action      string `json:"action"`
}

// tellBudget writes the event of a budget that has come near its end or reached it: by usage rows, and
// by an edit that sets it below what is used.
func (s *Store) tellBudget(ctx context.Context, tx *sql.Tx, nodeID int64, before, after budgetState, data budgetTold) error {
	kind := coreapi.EventBudgetNear
	switch {
	case after.spent && !before.spent:
		kind = coreapi.EventBudgetReached
	case after.spent || !after.warned || before.warned:
		return nil
	}
	return s.event(ctx, tx, Event{Kind: kind, At: s.clock(), NodeID: nodeID}, data)
}

// isWarned reports whether a share of a budget is reached, in percent; 0 for never.
func isWarned(used, budget, percent int64) bool {
	share, _ := weighed(budget, percent*wholeByte/100)
	return percent > 0 && used >= share
}

// movedSince returns the bytes of a node's usage rows since a time, maxSum at the most.
func movedSince(ctx context.Context, db queryer, nodeID int64, since time.Time) (bytes int64, err error) {
	// Rows beyond an eighth of maxSum are wrong already. The sum of thirty-two bits each can't be
	// too much for the number of rows that a table can have.
	var high, low int64
	const low32 = int64(1) << 32
	err = db.QueryRowContext(ctx, `SELECT coalesce(sum(bytes / ?3), 0), coalesce(sum(bytes % ?3), 0) FROM (
		SELECT min(bytes_up, ?4) + min(bytes_down, ?4) AS bytes FROM usage WHERE node_id = ?1 AND recorded_at >= ?2) moved`,
		nodeID, millis(since), low32, int64(maxSum)/8).Scan(&high, &low)
	if err != nil {
		return 0, fmt.Errorf("sum the usage of node %d: %w", nodeID, err)
	}
	if high >= maxSum/low32 {
		return maxSum, nil
	}
	return added(high*low32, low), nil
}

// turnBudgets begins the budgets that are due. Of the new month, there can be rows already.
func (s *Store) turnBudgets(ctx context.Context, tx *sql.Tx, now time.Time) (more bool, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT `+nodeColumns+` FROM nodes WHERE id IN (SELECT node_id FROM node_budgets WHERE ends_at <= ?)`, millis(now))
	nodes, err := collect(rows, err, func(r *sql.Rows) (Node, error) { return scanNode(r) })
	if err != nil {
		return false, err
	}
	var changed []int64
	for _, before := range nodes {
		if err := s.setBudget(ctx, tx, before, now); err != nil {
			return false, err
		}
		after, err := scanNode(tx.QueryRowContext(ctx, `SELECT `+nodeColumns+` FROM nodes WHERE id = ?`, before.ID))
		if err != nil {
			return false, err
		}
		if before.Serves() != after.Serves() {
			changed = append(changed, after.ID)
		}
	}
	return false, noteDue(ctx, tx, due{layouts: changed})
}

// moveBudgets gives all budgets the end that they have in the zone.
func moveBudgets(ctx context.Context, tx *sql.Tx, now time.Time, zone *time.Location) error {
	rows, err := tx.QueryContext(ctx, `SELECT n.id, n.budget_day FROM nodes n JOIN node_budgets b ON b.node_id = n.id WHERE b.ends_at > ?`, millis(now))
	all, err := collect(rows, err, func(r *sql.Rows) (p [2]int64, err error) { return p, r.Scan(&p[0], &p[1]) })
	if err != nil {
		return err
	}
	for _, b := range all {
		if _, err := tx.ExecContext(ctx, `UPDATE node_budgets SET ends_at = ? WHERE node_id = ?`, millis(budgetPeriod(b[1], zone).Next(now)), b[0]); err != nil {
			return err
		}
	}
	return nil
}

// addToBudget counts usage rows for the budget of their node, where it has one. Rows of before the
// budget's month do not count. reached says that the node is to get another document.
func (s *Store) addToBudget(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry) (reached bool, err error) {
	var start, budget, percent int64
	var action string
	err = tx.QueryRowContext(ctx, `SELECT b.starts_at, n.budget_bytes, n.budget_warn, n.budget_action FROM node_budgets b JOIN nodes n ON n.id = b.node_id WHERE b.node_id = ?`, nodeID).
		Scan(&start, &budget, &percent, &action)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("read the budget of node %d: %w", nodeID, err)
	}
	var sum int64
	for _, e := range entries {
		if millis(e.RecordedAt) >= start {
			sum = added(sum, added(e.BytesUp, e.BytesDown))
		}
	}
	var used int64
	var warned, spent bool
	if err := tx.QueryRowContext(ctx, `UPDATE node_budgets SET used = `+plus("used", "?1")+` WHERE node_id = ?2 RETURNING used, warned, spent`, sum, nodeID).Scan(&used, &warned, &spent); err != nil {
		return false, fmt.Errorf("add to the budget of node %d: %w", nodeID, err)
	}
	nowWarned, nowSpent := warned || isWarned(used, budget, percent), spent || used >= budget
	if nowWarned == warned && nowSpent == spent {
		return false, nil
	}
	if _, err := tx.ExecContext(ctx, `UPDATE node_budgets SET warned = ?, spent = ? WHERE node_id = ?`, nowWarned, nowSpent, nodeID); err != nil {
		return false, err
	}
	if err := s.tellBudget(ctx, tx, nodeID, budgetState{warned, spent}, budgetState{nowWarned, nowSpent}, budgetTold{budget, used, action}); err != nil {
		return false, err
	}
	return nowSpent != spent && action == "stop", nil
}

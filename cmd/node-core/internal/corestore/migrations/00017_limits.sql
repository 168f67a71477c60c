-- +goose Up
ALTER TABLE subscriptions ADD COLUMN used_bytes  INTEGER NOT NULL DEFAULT 0; -- of this period, as the limit counts them
ALTER TABLE subscriptions ADD COLUMN used_rest   INTEGER NOT NULL DEFAULT 0; -- thousandths of a byte beside used_bytes
ALTER TABLE subscriptions ADD COLUMN extra_bytes INTEGER NOT NULL DEFAULT 0; -- what this period has beside limit_bytes
ALTER TABLE subscriptions ADD COLUMN period_ends INTEGER;                    -- when the next period begins; NULL for never
ALTER TABLE subscriptions ADD COLUMN starts_by   INTEGER;                    -- on hold, its life begins then at the latest; NULL for no bound
UPDATE subscriptions SET used_bytes = CASE WHEN max(0, bytes_up - period_up) > 9223372036854775807 - max(0, bytes_down - period_down)
    THEN 9223372036854775807 ELSE max(0, bytes_up - period_up) + max(0, bytes_down - period_down) END;
-- Until now limits did not hold: a period that nobody has ever ended ends now.
UPDATE subscriptions SET period_ends = 0 WHERE period != 'none';
UPDATE subscriptions SET limited = 1 WHERE period = 'none' AND limit_bytes > 0 AND used_bytes >= limit_bytes;
CREATE INDEX subscriptions_by_period ON subscriptions (period_ends) WHERE period_ends IS NOT NULL;
CREATE INDEX subscriptions_by_period_start ON subscriptions (period_start) WHERE period_start > 0;
CREATE INDEX subscriptions_by_last_start ON subscriptions (starts_by) WHERE starts_by IS NOT NULL AND first_used_at IS NULL;

-- Nodes that are to get another document because a subscription's status has changed. A row is
-- written with the change, and goes with the next revision of the node.
CREATE TABLE due_nodes (
    node_id INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    layout  INTEGER NOT NULL DEFAULT 0 -- 1: not only clients are other ones
) STRICT;
INSERT INTO due_nodes (node_id) SELECT id FROM nodes WHERE EXISTS (SELECT 1 FROM subscriptions WHERE limited = 1);

ALTER TABLE nodes ADD COLUMN maintenance INTEGER NOT NULL DEFAULT 0; -- 1: it serves nobody for a while
ALTER TABLE nodes ADD COLUMN budget_warn INTEGER NOT NULL DEFAULT 80; -- percent of the budget at which Core warns; 0 for never
-- What nodes with a budget have moved.
CREATE TABLE node_budgets (
    node_id   INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    used      INTEGER NOT NULL,           -- bytes up and down together since starts_at
    starts_at INTEGER NOT NULL,
    ends_at   INTEGER NOT NULL,
    warned    INTEGER NOT NULL DEFAULT 0, -- budget_warn is reached
    spent     INTEGER NOT NULL DEFAULT 0  -- the budget is reached
) STRICT;
CREATE INDEX node_budgets_by_end ON node_budgets (ends_at);
-- A budget that is there begins with the next look at what is due.
INSERT INTO node_budgets (node_id, used, starts_at, ends_at) SELECT id, 0, 0, 0 FROM nodes WHERE budget_bytes > 0;

ALTER TABLE core ADD COLUMN timezone TEXT NOT NULL DEFAULT 'UTC'; -- in which periods begin

-- +goose Up
ALTER TABLE subscriptions ADD COLUMN used_bytes  BIGINT NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN used_rest   BIGINT NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN extra_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN period_ends BIGINT;
ALTER TABLE subscriptions ADD COLUMN starts_by   BIGINT;
UPDATE subscriptions SET used_bytes = CASE WHEN greatest(0, bytes_up - period_up) > 9223372036854775807 - greatest(0, bytes_down - period_down)
    THEN 9223372036854775807 ELSE greatest(0, bytes_up - period_up) + greatest(0, bytes_down - period_down) END;
UPDATE subscriptions SET period_ends = 0 WHERE period != 'none';
UPDATE subscriptions SET limited = 1 WHERE period = 'none' AND limit_bytes > 0 AND used_bytes >= limit_bytes;
CREATE INDEX subscriptions_by_period ON subscriptions (period_ends) WHERE period_ends IS NOT NULL;
CREATE INDEX subscriptions_by_period_start ON subscriptions (period_start) WHERE period_start > 0;
CREATE INDEX subscriptions_by_last_start ON subscriptions (starts_by) WHERE starts_by IS NOT NULL AND first_used_at IS NULL;

CREATE TABLE due_nodes (
    node_id BIGINT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    layout  BIGINT NOT NULL DEFAULT 0
);
INSERT INTO due_nodes (node_id) SELECT id FROM nodes WHERE EXISTS (SELECT 1 FROM subscriptions WHERE limited = 1);

ALTER TABLE nodes ADD COLUMN maintenance BIGINT NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN budget_warn BIGINT NOT NULL DEFAULT 80;
CREATE TABLE node_budgets (
    node_id   BIGINT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    used      BIGINT NOT NULL,
    starts_at BIGINT NOT NULL,
    ends_at   BIGINT NOT NULL,
    warned    BIGINT NOT NULL DEFAULT 0,
    spent     BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX node_budgets_by_end ON node_budgets (ends_at);
INSERT INTO node_budgets (node_id, used, starts_at, ends_at) SELECT id, 0, 0, 0 FROM nodes WHERE budget_bytes > 0;

ALTER TABLE core ADD COLUMN timezone TEXT COLLATE "C" NOT NULL DEFAULT 'UTC';
DROP TRIGGER notify_core ON core;
CREATE TRIGGER notify_core AFTER UPDATE ON core FOR EACH ROW
    WHEN ((old.id, old.epoch, old.next_url, old.timezone) IS DISTINCT FROM (new.id, new.epoch, new.next_url, new.timezone)) EXECUTE FUNCTION notify_core();

-- +goose Up
-- Which subscriptions are on which inbounds: each subscription is in one group, and a group
-- reaches everything, or the nodes of group_nodes and the inbounds of group_protocols.
CREATE TABLE access_groups (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    note       TEXT    NOT NULL DEFAULT '',
    everything INTEGER NOT NULL DEFAULT 0, -- reaches all inbounds of all nodes
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO access_groups (id, name, everything, created_at) VALUES (1, 'default', 1, 0);

CREATE TABLE group_nodes (
    group_id INTEGER NOT NULL REFERENCES access_groups (id) ON DELETE CASCADE,
    node_id  INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE, -- with all of its inbounds
    PRIMARY KEY (group_id, node_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX group_nodes_by_node ON group_nodes (node_id);

CREATE TABLE group_protocols (
    group_id    INTEGER NOT NULL REFERENCES access_groups (id) ON DELETE CASCADE,
    protocol_id INTEGER NOT NULL REFERENCES node_protocols (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, protocol_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX group_protocols_by_protocol ON group_protocols (protocol_id);

-- Templates of subscriptions' terms.
CREATE TABLE plans (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    name              TEXT    NOT NULL UNIQUE,
    note              TEXT    NOT NULL DEFAULT '',
    group_id          INTEGER NOT NULL DEFAULT 1,
    limit_bytes       INTEGER NOT NULL DEFAULT 0, -- 0 for no limit, as of the numbers below
    period            TEXT    NOT NULL DEFAULT 'none', -- none, day, week, month, rolling-month
    expires_after     INTEGER NOT NULL DEFAULT 0, -- seconds
    from_first_use    INTEGER NOT NULL DEFAULT 0, -- 1: expires_after counts from the first use
    limit_ips         INTEGER NOT NULL DEFAULT 0,
    limit_connections INTEGER NOT NULL DEFAULT 0,
    rate_up           INTEGER NOT NULL DEFAULT 0, -- bits per second
    rate_down         INTEGER NOT NULL DEFAULT 0,
    created_at        INTEGER NOT NULL
) STRICT;

ALTER TABLE users ADD COLUMN note    TEXT    NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN contact TEXT    NOT NULL DEFAULT '{}'; -- JSON object of texts
ALTER TABLE users ADD COLUMN enabled INTEGER NOT NULL DEFAULT 1;

ALTER TABLE subscriptions ADD COLUMN note              TEXT    NOT NULL DEFAULT '';
ALTER TABLE subscriptions ADD COLUMN group_id          INTEGER NOT NULL DEFAULT 1;
ALTER TABLE subscriptions ADD COLUMN plan_id           INTEGER NOT NULL DEFAULT 0; -- 0 for none
ALTER TABLE subscriptions ADD COLUMN limit_bytes       INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN period            TEXT    NOT NULL DEFAULT 'none';
ALTER TABLE subscriptions ADD COLUMN period_start      INTEGER NOT NULL DEFAULT 0; -- when it was reset last; 0 for never
ALTER TABLE subscriptions ADD COLUMN period_up         INTEGER NOT NULL DEFAULT 0; -- bytes_up at that time
ALTER TABLE subscriptions ADD COLUMN period_down       INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN expires_at        INTEGER;                    -- NULL for never, or not known yet
ALTER TABLE subscriptions ADD COLUMN expires_after     INTEGER NOT NULL DEFAULT 0; -- seconds from the first use; 0 where expires_at is fixed
ALTER TABLE subscriptions ADD COLUMN first_used_at     INTEGER;                    -- kept only where expires_after is set
ALTER TABLE subscriptions ADD COLUMN expired           INTEGER NOT NULL DEFAULT 0; -- expires_at is over, and nodes were told
ALTER TABLE subscriptions ADD COLUMN limited           INTEGER NOT NULL DEFAULT 0; -- limit_bytes is used up, and nodes were told
ALTER TABLE subscriptions ADD COLUMN user_enabled      INTEGER NOT NULL DEFAULT 1; -- users.enabled, so that the status has an index
ALTER TABLE subscriptions ADD COLUMN limit_ips         INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN limit_connections INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN rate_up           INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN rate_down         INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN status TEXT NOT NULL GENERATED ALWAYS AS (CASE
    WHEN enabled = 0 OR user_enabled = 0 THEN 'disabled'
    WHEN expired = 1 THEN 'expired'
    WHEN limited = 1 THEN 'limited'
    WHEN expires_after > 0 AND first_used_at IS NULL THEN 'on_hold'
    ELSE 'active' END) VIRTUAL;
CREATE INDEX subscriptions_by_user ON subscriptions (user_id);
CREATE INDEX subscriptions_by_status ON subscriptions (status, id);
CREATE INDEX subscriptions_by_group ON subscriptions (group_id, id);
CREATE INDEX subscriptions_by_expiry ON subscriptions (expires_at) WHERE expires_at IS NOT NULL AND expired = 0;

-- The names of what was removed, for the usage rows that are kept.
CREATE TABLE removed_names (
    kind       TEXT    NOT NULL, -- user, subscription, node, protocol
    id         INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    user_id    INTEGER NOT NULL DEFAULT 0, -- whose subscription it was
    removed_at INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID, STRICT;

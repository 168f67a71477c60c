-- +goose Up
CREATE TABLE access_groups (
    id         BIGINT PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    note       TEXT COLLATE "C" NOT NULL DEFAULT '',
    everything BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL
);
CREATE TRIGGER note_ids AFTER INSERT ON access_groups REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_ids();
INSERT INTO access_groups (id, name, everything, created_at) VALUES (1, 'default', 1, 0);

CREATE TABLE group_nodes (
    group_id BIGINT NOT NULL REFERENCES access_groups (id) ON DELETE CASCADE,
    node_id  BIGINT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, node_id)
);
CREATE INDEX group_nodes_by_node ON group_nodes (node_id);

CREATE TABLE group_protocols (
    group_id    BIGINT NOT NULL REFERENCES access_groups (id) ON DELETE CASCADE,
    protocol_id BIGINT NOT NULL REFERENCES node_protocols (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, protocol_id)
);
CREATE INDEX group_protocols_by_protocol ON group_protocols (protocol_id);

CREATE TABLE plans (
    id                BIGINT PRIMARY KEY,
    name              TEXT COLLATE "C" NOT NULL UNIQUE,
    note              TEXT COLLATE "C" NOT NULL DEFAULT '',
    group_id          BIGINT NOT NULL DEFAULT 1,
    limit_bytes       BIGINT NOT NULL DEFAULT 0,
    period            TEXT COLLATE "C" NOT NULL DEFAULT 'none',
    expires_after     BIGINT NOT NULL DEFAULT 0,
    from_first_use    BIGINT NOT NULL DEFAULT 0,
    limit_ips         BIGINT NOT NULL DEFAULT 0,
    limit_connections BIGINT NOT NULL DEFAULT 0,
    rate_up           BIGINT NOT NULL DEFAULT 0,
    rate_down         BIGINT NOT NULL DEFAULT 0,
    created_at        BIGINT NOT NULL
);
CREATE TRIGGER note_ids AFTER INSERT ON plans REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_ids();

ALTER TABLE users
    ADD COLUMN note    TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN contact TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    ADD COLUMN enabled BIGINT NOT NULL DEFAULT 1;

ALTER TABLE subscriptions
    ADD COLUMN note              TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN group_id          BIGINT NOT NULL DEFAULT 1,
    ADD COLUMN plan_id           BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN limit_bytes       BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN period            TEXT COLLATE "C" NOT NULL DEFAULT 'none',
    ADD COLUMN period_start      BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN period_up         BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN period_down       BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN expires_at        BIGINT,
    ADD COLUMN expires_after     BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN first_used_at     BIGINT,
    ADD COLUMN expired           BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN limited           BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN user_enabled      BIGINT NOT NULL DEFAULT 1,
    ADD COLUMN limit_ips         BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN limit_connections BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN rate_up           BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN rate_down         BIGINT NOT NULL DEFAULT 0;
-- PostgreSQL 15 has stored columns only, and SQLite can't add them.
ALTER TABLE subscriptions ADD COLUMN status TEXT COLLATE "C" NOT NULL GENERATED ALWAYS AS (CASE
    WHEN enabled = 0 OR user_enabled = 0 THEN 'disabled'
    WHEN expired = 1 THEN 'expired'
    WHEN limited = 1 THEN 'limited'
    WHEN expires_after > 0 AND first_used_at IS NULL THEN 'on_hold'
    ELSE 'active' END) STORED;
CREATE INDEX subscriptions_by_user ON subscriptions (user_id);
CREATE INDEX subscriptions_by_status ON subscriptions (status, id);
CREATE INDEX subscriptions_by_group ON subscriptions (group_id, id);
CREATE INDEX subscriptions_by_expiry ON subscriptions (expires_at) WHERE expires_at IS NOT NULL AND expired = 0;

CREATE TABLE removed_names (
    kind       TEXT COLLATE "C" NOT NULL,
    id         BIGINT NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    user_id    BIGINT NOT NULL DEFAULT 0,
    removed_at BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);

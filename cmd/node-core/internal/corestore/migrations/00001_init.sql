-- +goose Up
CREATE TABLE nodes (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    name             TEXT    NOT NULL UNIQUE,
    region           TEXT    NOT NULL DEFAULT '',
    host             TEXT    NOT NULL DEFAULT '', -- as the node told it when it registered
    ip               TEXT    NOT NULL DEFAULT '',
    auth_key_hash    BLOB    UNIQUE,              -- SHA-256; NULL until registered
    status           TEXT    NOT NULL DEFAULT 'pending', -- pending, online, error
    sync_status      TEXT    NOT NULL DEFAULT 'pending', -- pending, synced, failed
    revision         INTEGER NOT NULL DEFAULT 1,  -- the one that the node should run
    applied_revision INTEGER,                     -- the one that it said it runs
    last_seen_at     INTEGER,                     -- Unix milliseconds, as every time here
    last_error       TEXT,
    last_error_code  TEXT,
    last_error_at    INTEGER,
    registered_at    INTEGER,
    created_at       INTEGER NOT NULL
) STRICT;

CREATE TABLE registration_codes (
    hash       BLOB    PRIMARY KEY, -- SHA-256
    node_id    INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER,
    attempt    BLOB     -- SHA-256 of the Idempotency-Key that used it
) WITHOUT ROWID, STRICT;

CREATE TABLE node_protocols (
    id         INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again: traffic refers to it
    node_id    INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    tag        TEXT    NOT NULL,
    protocol   TEXT    NOT NULL,
    listen     TEXT    NOT NULL,
    port       INTEGER NOT NULL,
    config     TEXT    NOT NULL, -- the engine's own object, without clients
    link       TEXT    NOT NULL DEFAULT '{}', -- what links need beside it
    status     TEXT    NOT NULL DEFAULT 'pending', -- pending, active, failed
    created_at INTEGER NOT NULL,
    UNIQUE (node_id, tag)
) STRICT;

CREATE TABLE node_outbounds (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id            INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    tag                TEXT    NOT NULL,
    config             TEXT,    -- Xray's own object; NULL for a tag that only traffic named
    traffic_bytes_up   INTEGER NOT NULL DEFAULT 0,
    traffic_bytes_down INTEGER NOT NULL DEFAULT 0,
    created_at         INTEGER NOT NULL,
    UNIQUE (node_id, tag)
) STRICT;

CREATE TABLE users (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE subscriptions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    uuid       TEXT    NOT NULL UNIQUE,
    enabled    INTEGER NOT NULL DEFAULT 1,
    bytes_up   INTEGER NOT NULL DEFAULT 0,
    bytes_down INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT;

-- No foreign keys: traffic of what was removed meanwhile is kept.
CREATE TABLE usage (
    node_id          INTEGER NOT NULL,
    recorded_at      INTEGER NOT NULL,
    user_id          INTEGER NOT NULL,
    subscription_id  INTEGER NOT NULL, -- 0 for none
    node_protocol_id INTEGER NOT NULL,
    bytes_up         INTEGER NOT NULL,
    bytes_down       INTEGER NOT NULL,
    flagged          INTEGER NOT NULL DEFAULT 0, -- recorded_at is far from when it came
    PRIMARY KEY (node_id, recorded_at, user_id, subscription_id, node_protocol_id)
) WITHOUT ROWID, STRICT;

CREATE TABLE session_events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id     INTEGER NOT NULL,
    user_id     INTEGER NOT NULL,
    protocol    TEXT    NOT NULL,
    event_type  TEXT    NOT NULL,
    occurred_at INTEGER NOT NULL,
    ip_address  TEXT    NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE node_errors (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    code    TEXT    NOT NULL,
    message TEXT    NOT NULL,
    details TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;

-- Batches that were taken, so that a repeated one changes nothing.
CREATE TABLE idempotency_keys (
    node_id    INTEGER NOT NULL,
    key        TEXT    NOT NULL,
    route      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (node_id, route, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX usage_by_minute ON usage (recorded_at);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

CREATE TABLE secrets (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID, STRICT;

-- +goose Up
-- What the migrations of SQLite up to this number make. The types differ in their names
-- (INTEGER is BIGINT, BLOB is BYTEA), and texts are ordered by their bytes as on SQLite.
-- What each column means is written in the migrations of SQLite.

-- SQLite has these as scalar functions. A NULL makes the result NULL there.
-- +goose StatementBegin
CREATE FUNCTION max(a BIGINT, b BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    'SELECT CASE WHEN a IS NULL OR b IS NULL THEN NULL WHEN a > b THEN a ELSE b END';
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION min(a BIGINT, b BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    'SELECT CASE WHEN a IS NULL OR b IS NULL THEN NULL WHEN a < b THEN a ELSE b END';
-- +goose StatementEnd

-- The greatest id that each table with the trigger note_ids has ever had. SQLite keeps such a
-- table by itself for keys with AUTOINCREMENT, and gives it this name; nextID reads it. The
-- transactions that add such rows come one after the other.
CREATE TABLE sqlite_sequence (
    name TEXT COLLATE "C" PRIMARY KEY,
    seq  BIGINT NOT NULL
);
-- +goose StatementBegin
CREATE FUNCTION note_ids() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sqlite_sequence AS s (name, seq) SELECT TG_TABLE_NAME, max(id) FROM added HAVING max(id) IS NOT NULL
        ON CONFLICT (name) DO UPDATE SET seq = excluded.seq WHERE s.seq < excluded.seq;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- Every instance of Core listens: see corestore.Listen.
-- +goose StatementBegin
CREATE FUNCTION notify_node() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    node RECORD;
BEGIN
    IF TG_OP = 'DELETE' THEN node := old; ELSE node := new; END IF;
    PERFORM pg_notify('node_core', concat_ws(' ', TG_ARGV[0], node.id, node.revision));
    RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION notify_core() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('node_core', 'core');
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TABLE nodes (
    id                BIGINT PRIMARY KEY,
    name              TEXT COLLATE "C" NOT NULL UNIQUE,
    region            TEXT COLLATE "C" NOT NULL DEFAULT '',
    host              TEXT COLLATE "C" NOT NULL DEFAULT '',
    ip                TEXT COLLATE "C" NOT NULL DEFAULT '',
    auth_key_hash     BYTEA UNIQUE,
    status            TEXT COLLATE "C" NOT NULL DEFAULT 'pending',
    sync_status       TEXT COLLATE "C" NOT NULL DEFAULT 'pending',
    revision          BIGINT NOT NULL DEFAULT 1,
    applied_revision  BIGINT,
    last_seen_at      BIGINT,
    last_error        TEXT COLLATE "C",
    last_error_code   TEXT COLLATE "C",
    last_error_at     BIGINT,
    registered_at     BIGINT,
    created_at        BIGINT NOT NULL,
    mtproto           TEXT COLLATE "C" NOT NULL DEFAULT '',
    agent             TEXT COLLATE "C" NOT NULL DEFAULT '',
    document_etag     TEXT COLLATE "C" NOT NULL DEFAULT '',
    document_revision BIGINT NOT NULL DEFAULT 0,
    boot              TEXT COLLATE "C" NOT NULL DEFAULT '',
    earlier_boot      TEXT COLLATE "C" NOT NULL DEFAULT '',
    machine           TEXT COLLATE "C" NOT NULL DEFAULT '',
    two_daemons_at    BIGINT,
    next_key_hash     BYTEA,
    next_key_seed     TEXT COLLATE "C" NOT NULL DEFAULT '',
    last_key_hash     BYTEA,
    last_key_ends     BIGINT NOT NULL DEFAULT 0,
    refused_revision  BIGINT
) WITH (fillfactor = 50); -- each heartbeat rewrites its row: room on the page spares the indexes
CREATE UNIQUE INDEX nodes_by_next_key ON nodes (next_key_hash) WHERE next_key_hash IS NOT NULL;
CREATE UNIQUE INDEX nodes_by_last_key ON nodes (last_key_hash) WHERE last_key_hash IS NOT NULL;
CREATE TRIGGER note_ids AFTER INSERT ON nodes REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_ids();
CREATE TRIGGER notify_changed AFTER UPDATE OF revision, next_key_seed ON nodes FOR EACH ROW
    WHEN (old.revision <> new.revision OR old.next_key_seed <> new.next_key_seed AND new.next_key_seed <> '') EXECUTE FUNCTION notify_node('changed');
CREATE TRIGGER notify_removed AFTER DELETE ON nodes FOR EACH ROW EXECUTE FUNCTION notify_node('changed');
CREATE TRIGGER notify_reported AFTER UPDATE OF applied_revision, refused_revision, status, sync_status, last_error_at ON nodes FOR EACH ROW
    WHEN ((old.applied_revision, old.refused_revision, old.status, old.sync_status, old.last_error_at)
        IS DISTINCT FROM (new.applied_revision, new.refused_revision, new.status, new.sync_status, new.last_error_at))
    EXECUTE FUNCTION notify_node('reported');

CREATE TABLE registration_codes (
    hash       BYTEA PRIMARY KEY,
    node_id    BIGINT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT,
    attempt    BYTEA
);

CREATE TABLE node_protocols (
    id         BIGINT PRIMARY KEY,
    node_id    BIGINT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    tag        TEXT COLLATE "C" NOT NULL,
    protocol   TEXT COLLATE "C" NOT NULL,
    listen     TEXT COLLATE "C" NOT NULL,
    port       BIGINT NOT NULL,
    config     TEXT COLLATE "C" NOT NULL,
    link       TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    status     TEXT COLLATE "C" NOT NULL DEFAULT 'pending',
    created_at BIGINT NOT NULL,
    UNIQUE (node_id, tag)
);
CREATE TRIGGER note_ids AFTER INSERT ON node_protocols REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_ids();

CREATE TABLE node_outbounds (
    id                 BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    node_id            BIGINT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    tag                TEXT COLLATE "C" NOT NULL,
    config             TEXT COLLATE "C",
    traffic_bytes_up   BIGINT NOT NULL DEFAULT 0,
    traffic_bytes_down BIGINT NOT NULL DEFAULT 0,
    created_at         BIGINT NOT NULL,
    UNIQUE (node_id, tag)
);

CREATE TABLE users (
    id         BIGINT PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);
CREATE TRIGGER note_ids AFTER INSERT ON users REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_ids();

CREATE TABLE subscriptions (
    id             BIGINT PRIMARY KEY,
    user_id        BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    uuid           TEXT COLLATE "C" NOT NULL UNIQUE,
    enabled        BIGINT NOT NULL DEFAULT 1,
    bytes_up       BIGINT NOT NULL DEFAULT 0,
    bytes_down     BIGINT NOT NULL DEFAULT 0,
    created_at     BIGINT NOT NULL,
    mtproto_secret TEXT COLLATE "C" NOT NULL DEFAULT ''
) WITH (fillfactor = 70); -- each batch of usage rewrites rows
CREATE TRIGGER note_ids AFTER INSERT ON subscriptions REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_ids();

-- Days and months have partitions of their own, which Core makes and drops: see partitions.go. What is
-- of no such day is in usage_other.
CREATE TABLE usage (
    node_id          BIGINT NOT NULL,
    recorded_at      BIGINT NOT NULL,
    user_id          BIGINT NOT NULL,
    subscription_id  BIGINT NOT NULL,
    node_protocol_id BIGINT NOT NULL,
    bytes_up         BIGINT NOT NULL,
    bytes_down       BIGINT NOT NULL,
    flagged          BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (node_id, recorded_at, user_id, subscription_id, node_protocol_id)
) PARTITION BY RANGE (recorded_at);
CREATE INDEX usage_by_minute ON usage (recorded_at);
CREATE TABLE usage_other PARTITION OF usage DEFAULT;

CREATE TABLE session_events (
    id          BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    node_id     BIGINT NOT NULL,
    user_id     BIGINT NOT NULL,
    protocol    TEXT COLLATE "C" NOT NULL,
    event_type  TEXT COLLATE "C" NOT NULL,
    occurred_at BIGINT NOT NULL,
    ip_address  TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX session_events_by_time ON session_events (occurred_at);

CREATE TABLE node_errors (
    id      BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    node_id BIGINT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    code    TEXT COLLATE "C" NOT NULL,
    message TEXT COLLATE "C" NOT NULL,
    details TEXT COLLATE "C" NOT NULL,
    at      BIGINT NOT NULL
);
CREATE INDEX node_errors_by_time ON node_errors (at);

CREATE TABLE idempotency_keys (
    node_id    BIGINT NOT NULL,
    key        TEXT COLLATE "C" NOT NULL,
    route      TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (node_id, route, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

CREATE TABLE secrets (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value BYTEA NOT NULL
);

CREATE TABLE core (
    id         TEXT COLLATE "C" NOT NULL,
    epoch      BIGINT NOT NULL,
    noticed_at BIGINT NOT NULL DEFAULT 0,
    next_url   TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE TRIGGER notify_core AFTER UPDATE ON core FOR EACH ROW
    WHEN ((old.id, old.epoch, old.next_url) IS DISTINCT FROM (new.id, new.epoch, new.next_url)) EXECUTE FUNCTION notify_core();

CREATE TABLE node_refusals (
    node_id        BIGINT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    kind           TEXT COLLATE "C" NOT NULL,
    tag            TEXT COLLATE "C" NOT NULL,
    client         TEXT COLLATE "C" NOT NULL,
    reason         TEXT COLLATE "C" NOT NULL,
    retry          BIGINT NOT NULL,
    since          BIGINT NOT NULL,
    since_revision BIGINT NOT NULL,
    PRIMARY KEY (node_id, kind, tag, client)
);

CREATE TABLE node_status (
    node_id BIGINT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    body    TEXT COLLATE "C" NOT NULL,
    at      BIGINT NOT NULL
);

-- +goose Up
CREATE TABLE events (
    id              BIGINT PRIMARY KEY,
    at              BIGINT NOT NULL,
    kind            TEXT COLLATE "C" NOT NULL,
    node_id         BIGINT NOT NULL DEFAULT 0,
    node            TEXT COLLATE "C" NOT NULL DEFAULT '',
    user_id         BIGINT NOT NULL DEFAULT 0,
    user_name       TEXT COLLATE "C" NOT NULL DEFAULT '',
    subscription_id BIGINT NOT NULL DEFAULT 0,
    data            TEXT COLLATE "C" NOT NULL
);
CREATE INDEX events_by_time ON events (at);
-- An event is written with a negative id, and gets its own at the commit. The row of
-- sqlite_sequence stays locked from then until the commit is visible: ids rise in the order of
-- the commits. Nothing else is locked after it, so that no two transactions wait for each other.
-- +goose StatementBegin
CREATE FUNCTION number_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    next BIGINT;
BEGIN
    INSERT INTO sqlite_sequence AS s (name, seq) VALUES ('events', (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT)
        ON CONFLICT (name) DO UPDATE SET seq = greatest(s.seq + 1, excluded.seq) RETURNING seq INTO next;
    UPDATE events SET id = next WHERE id = new.id;
    PERFORM pg_notify('node_core', 'event');
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER number_event AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (new.id < 0) EXECUTE FUNCTION number_event();
ALTER TABLE core ADD COLUMN events_deleted BIGINT NOT NULL DEFAULT 0;

ALTER TABLE nodes ADD COLUMN told TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN told_at BIGINT NOT NULL DEFAULT 0;
UPDATE nodes SET told = CASE WHEN status IN ('online', 'degraded', 'error') THEN status ELSE '' END WHERE last_seen_at IS NOT NULL;
ALTER TABLE users ADD COLUMN first_connected_at BIGINT;
UPDATE users SET first_connected_at = 0 WHERE id IN (SELECT user_id FROM subscriptions WHERE bytes_up > 0 OR bytes_down > 0);
ALTER TABLE subscriptions
    ADD COLUMN told_end  BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN told_near BIGINT NOT NULL DEFAULT 0;

CREATE TABLE webhooks (
    id            BIGINT PRIMARY KEY,
    url           TEXT COLLATE "C" NOT NULL,
    kinds         TEXT COLLATE "C" NOT NULL,
    secret        BYTEA  NOT NULL,
    position      BIGINT NOT NULL,
    attempts      BIGINT NOT NULL DEFAULT 0,
    first_at      BIGINT,
    next_at       BIGINT NOT NULL DEFAULT 0,
    failing       BIGINT NOT NULL DEFAULT 0,
    given_up      BIGINT NOT NULL DEFAULT 0,
    last_error    TEXT COLLATE "C" NOT NULL DEFAULT '',
    last_error_at BIGINT,
    delivered_at  BIGINT,
    created_at    BIGINT NOT NULL
);
CREATE TRIGGER note_ids AFTER INSERT ON webhooks REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_ids();

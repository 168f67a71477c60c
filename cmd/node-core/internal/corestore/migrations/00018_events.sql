-- +goose Up
-- What has happened: a row is written in the transaction of its change. Ids rise in the order of
-- the commits, so that a reader who has seen one id has seen all below it.
CREATE TABLE events (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    at              INTEGER NOT NULL,
    kind            TEXT    NOT NULL,           -- see coreapi.EventKinds
    node_id         INTEGER NOT NULL DEFAULT 0, -- 0 for none, as of the ids below
    node            TEXT    NOT NULL DEFAULT '', -- its name at that time
    user_id         INTEGER NOT NULL DEFAULT 0,
    user_name       TEXT    NOT NULL DEFAULT '',
    subscription_id INTEGER NOT NULL DEFAULT 0,
    data            TEXT    NOT NULL            -- JSON object
) STRICT;
CREATE INDEX events_by_time ON events (at);
-- Events up to this id are deleted.
ALTER TABLE core ADD COLUMN events_deleted INTEGER NOT NULL DEFAULT 0;

-- The last state of which there is an event: online, degraded, error, offline; '' for none.
ALTER TABLE nodes ADD COLUMN told TEXT NOT NULL DEFAULT '';
-- When there was that event.
ALTER TABLE nodes ADD COLUMN told_at INTEGER NOT NULL DEFAULT 0;
UPDATE nodes SET told = CASE WHEN status IN ('online', 'degraded', 'error') THEN status ELSE '' END WHERE last_seen_at IS NOT NULL;
-- When a node said first that the user is online; 0 for those who had traffic before Core kept it.
ALTER TABLE users ADD COLUMN first_connected_at INTEGER;
UPDATE users SET first_connected_at = 0 WHERE id IN (SELECT user_id FROM subscriptions WHERE bytes_up > 0 OR bytes_down > 0);
-- The end of which there is an event that it comes near; 0 for none.
ALTER TABLE subscriptions ADD COLUMN told_end INTEGER NOT NULL DEFAULT 0;
-- 1 while there is an event that the limit is near.
ALTER TABLE subscriptions ADD COLUMN told_near INTEGER NOT NULL DEFAULT 0;

-- Where events are sent.
CREATE TABLE webhooks (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    url           TEXT    NOT NULL,
    kinds         TEXT    NOT NULL,           -- JSON list of kinds of events; [] for all
    secret        BLOB    NOT NULL,           -- the key of the signature, as it is
    position      INTEGER NOT NULL,           -- the last event that was delivered, given up or not wanted
    attempts      INTEGER NOT NULL DEFAULT 0, -- for the event after it
    first_at      INTEGER,                    -- the first of these attempts
    next_at       INTEGER NOT NULL DEFAULT 0, -- not before
    failing       INTEGER NOT NULL DEFAULT 0, -- 1: an event was given up, and none was delivered since
    given_up      INTEGER NOT NULL DEFAULT 0, -- how many events were given up
    last_error    TEXT    NOT NULL DEFAULT '',
    last_error_at INTEGER,
    delivered_at  INTEGER,                    -- the last success
    created_at    INTEGER NOT NULL
) STRICT;

-- +goose Up
-- The tokens of the admin API.
CREATE TABLE api_tokens (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT    NOT NULL UNIQUE,
    hash         BLOB    NOT NULL UNIQUE, -- SHA-256
    role         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    expires_at   INTEGER,                 -- NULL for never
    last_used_at INTEGER                  -- to the minute
) STRICT;

-- Who changed what: a row is written in the transaction of its change.
CREATE TABLE audit (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    who       TEXT    NOT NULL, -- the name of the token, or socket
    role      TEXT    NOT NULL,
    operation TEXT    NOT NULL, -- its id in the OpenAPI document
    target    TEXT    NOT NULL, -- the path
    details   TEXT    NOT NULL  -- JSON object: what the request said, without secrets
) STRICT;
CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_who ON audit (who, id);

-- Answers to requests with an Idempotency-Key. The row comes in the transaction of the change,
-- and the answer after it.
CREATE TABLE api_requests (
    who        TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    request    BLOB    NOT NULL, -- SHA-256 of the method, the path and the body
    created_at INTEGER NOT NULL,
    status     INTEGER NOT NULL DEFAULT 0, -- 0 where there is no answer: it is not known yet, is lost, or has a secret
    header     TEXT    NOT NULL DEFAULT '{}',
    answer     BLOB,
    PRIMARY KEY (who, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX api_requests_by_age ON api_requests (created_at);

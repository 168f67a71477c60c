-- +goose Up
-- Who this Core is: one row, which Open adds.
CREATE TABLE core (
    id         TEXT    NOT NULL,            -- a UUID, made with the database and kept in its copies
    epoch      INTEGER NOT NULL,            -- raised when the database was restored, see noticeRestore and Restore
    noticed_at INTEGER NOT NULL DEFAULT 0,  -- when a node's word raised it last
    next_url   TEXT    NOT NULL DEFAULT ''  -- the address that nodes are to try too; '' for none
) STRICT;
-- The newest document that was built for the node.
ALTER TABLE nodes ADD COLUMN document_etag     TEXT    NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN document_revision INTEGER NOT NULL DEFAULT 0;
-- Which daemons speak with the node's key: the random ids of the last two starts, the hash of
-- the last one's machine, and when an earlier one spoke again.
ALTER TABLE nodes ADD COLUMN boot          TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN earlier_boot  TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN machine       TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN two_daemons_at INTEGER;
-- A key that the node is offered in exchange for its own, and the key that it had before.
ALTER TABLE nodes ADD COLUMN next_key_hash BLOB;
ALTER TABLE nodes ADD COLUMN next_key_seed TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN last_key_hash BLOB;
ALTER TABLE nodes ADD COLUMN last_key_ends INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX nodes_by_next_key ON nodes (next_key_hash) WHERE next_key_hash IS NOT NULL;
CREATE UNIQUE INDEX nodes_by_last_key ON nodes (last_key_hash) WHERE last_key_hash IS NOT NULL;

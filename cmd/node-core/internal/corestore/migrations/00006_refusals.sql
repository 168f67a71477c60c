-- +goose Up
-- The parts of its configuration that a node does not run.
CREATE TABLE node_refusals (
    node_id        INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    kind           TEXT    NOT NULL, -- inbound, client, …; '' for the whole configuration
    tag            TEXT    NOT NULL,
    client         TEXT    NOT NULL,
    reason         TEXT    NOT NULL,
    retry          INTEGER NOT NULL, -- the node tries it again by itself
    since          INTEGER NOT NULL,
    since_revision INTEGER NOT NULL, -- the first revision in which it was refused
    PRIMARY KEY (node_id, kind, tag, client)
) WITHOUT ROWID, STRICT;
-- The revision of the newest report of refused parts.
ALTER TABLE nodes ADD COLUMN refused_revision INTEGER;

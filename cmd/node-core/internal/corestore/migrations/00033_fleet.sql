-- +goose Up
-- When nodes were heard of last by heartbeats that say nothing new. It has a table of its own, since a row of
-- nodes is forty times as long: these times change all the time. nodes.last_seen_at has when the node
-- last said something new; the later one counts, and none where last_seen_at is NULL.
CREATE TABLE node_seen (
    node_id INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    at      INTEGER NOT NULL
) STRICT;
-- On SQLite, a change of clients on all nodes raises this revision alone. A node should run the greater of this one and of
-- its own, see corestore.wanted.
CREATE TABLE all_nodes (
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO all_nodes (revision) VALUES (0);
CREATE INDEX nodes_failed ON nodes (id) WHERE sync_status = 'failed';

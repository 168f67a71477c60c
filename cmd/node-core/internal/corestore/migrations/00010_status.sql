-- +goose Up
-- How each node said last that it is: a body of POST /node/status.
CREATE TABLE node_status (
    node_id INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    body    TEXT    NOT NULL,
    at      INTEGER NOT NULL -- when Core received it
) STRICT;

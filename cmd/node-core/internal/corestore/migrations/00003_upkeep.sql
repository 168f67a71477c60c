-- +goose Up
-- What is old is looked for by its time.
CREATE INDEX session_events_by_time ON session_events (occurred_at);
CREATE INDEX node_errors_by_time ON node_errors (at);

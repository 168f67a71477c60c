-- +goose Up
-- Who is online, as the nodes said last.
CREATE TABLE online_sessions (
    node_id    BIGINT NOT NULL,
    user_id    BIGINT NOT NULL,
    protocol   TEXT COLLATE "C" NOT NULL,
    ip_address TEXT COLLATE "C" NOT NULL, -- '' where the node did not say it
    since      BIGINT NOT NULL,
    PRIMARY KEY (node_id, user_id, protocol, ip_address)
);
CREATE INDEX online_sessions_by_user ON online_sessions (user_id);
-- From the events of before: those whose last word is online.
INSERT INTO online_sessions (node_id, user_id, protocol, ip_address, since)
    SELECT e.node_id, e.user_id, e.protocol, e.ip_address, e.occurred_at FROM session_events e
    JOIN (SELECT max(id) AS id FROM session_events GROUP BY node_id, user_id, protocol, ip_address) newest ON newest.id = e.id
    WHERE e.event_type = 'online' AND e.node_id IN (SELECT id FROM nodes);

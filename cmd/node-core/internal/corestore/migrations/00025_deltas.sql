-- +goose Up
-- Raised with every change of what a node runs, but for its clients.
ALTER TABLE nodes ADD COLUMN layout INTEGER NOT NULL DEFAULT 0;
-- Which subscriptions changed for nodes, in the order of the commits. Triggers write it.
CREATE TABLE client_changes (
    subscription_id INTEGER PRIMARY KEY,
    seq             INTEGER NOT NULL
);
CREATE INDEX client_changes_by_seq ON client_changes (seq);
-- +goose StatementBegin
CREATE TRIGGER client_added AFTER INSERT ON subscriptions WHEN new.status IN ('active', 'on_hold') BEGIN
    INSERT INTO client_changes (subscription_id, seq) VALUES (new.id, (SELECT coalesce(max(seq), 0) + 1 FROM client_changes))
        ON CONFLICT (subscription_id) DO UPDATE SET seq = excluded.seq;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER client_changed AFTER UPDATE OF uuid, user_id, mtproto_secret, credentials, group_id, limit_ips, limit_connections, rate_up, rate_down,
    enabled, user_enabled, expired, limited ON subscriptions
    WHEN (old.status IN ('active', 'on_hold') OR new.status IN ('active', 'on_hold'))
    AND ((old.status IN ('active', 'on_hold')) <> (new.status IN ('active', 'on_hold'))
        OR old.uuid <> new.uuid OR old.user_id <> new.user_id OR old.mtproto_secret <> new.mtproto_secret OR old.credentials <> new.credentials
        OR old.group_id <> new.group_id OR old.limit_ips <> new.limit_ips OR old.limit_connections <> new.limit_connections
        OR old.rate_up <> new.rate_up OR old.rate_down <> new.rate_down) BEGIN
    INSERT INTO client_changes (subscription_id, seq) VALUES (new.id, (SELECT coalesce(max(seq), 0) + 1 FROM client_changes))
        ON CONFLICT (subscription_id) DO UPDATE SET seq = excluded.seq;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER client_removed AFTER DELETE ON subscriptions WHEN old.status IN ('active', 'on_hold') BEGIN
    INSERT INTO client_changes (subscription_id, seq) VALUES (old.id, (SELECT coalesce(max(seq), 0) + 1 FROM client_changes))
        ON CONFLICT (subscription_id) DO UPDATE SET seq = excluded.seq;
END;
-- +goose StatementEnd

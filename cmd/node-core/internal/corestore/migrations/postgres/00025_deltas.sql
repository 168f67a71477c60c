-- +goose Up
-- Raised with every change of what a node runs, but for its clients.
ALTER TABLE nodes ADD COLUMN layout BIGINT NOT NULL DEFAULT 0;
-- Which subscriptions changed for nodes, in the order of the commits. Triggers write it.
CREATE TABLE client_changes (
    subscription_id BIGINT PRIMARY KEY,
    seq             BIGINT NOT NULL
);
CREATE INDEX client_changes_by_seq ON client_changes (seq);
-- The lock is that of edits (lockEdit in dialect.go). It lets the numbers be in the order of the commits.
-- +goose StatementBegin
CREATE FUNCTION note_client() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed BIGINT;
BEGIN
    IF TG_OP = 'DELETE' THEN changed := old.id; ELSE changed := new.id; END IF;
    PERFORM pg_advisory_xact_lock(1852010354, 2);
    INSERT INTO client_changes (subscription_id, seq) VALUES (changed, (SELECT coalesce(max(seq), 0) + 1 FROM client_changes))
        ON CONFLICT (subscription_id) DO UPDATE SET seq = excluded.seq;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER client_added AFTER INSERT ON subscriptions FOR EACH ROW WHEN (new.status IN ('active', 'on_hold')) EXECUTE FUNCTION note_client();
CREATE TRIGGER client_changed AFTER UPDATE OF uuid, user_id, mtproto_secret, credentials, group_id, limit_ips, limit_connections, rate_up, rate_down,
    enabled, user_enabled, expired, limited ON subscriptions FOR EACH ROW
    WHEN ((old.status IN ('active', 'on_hold') OR new.status IN ('active', 'on_hold'))
    AND (old.status IN ('active', 'on_hold'), old.uuid, old.user_id, old.mtproto_secret, old.credentials, old.group_id, old.limit_ips, old.limit_connections, old.rate_up, old.rate_down)
    IS DISTINCT FROM (new.status IN ('active', 'on_hold'), new.uuid, new.user_id, new.mtproto_secret, new.credentials, new.group_id, new.limit_ips, new.limit_connections, new.rate_up, new.rate_down))
    EXECUTE FUNCTION note_client();
CREATE TRIGGER client_removed AFTER DELETE ON subscriptions FOR EACH ROW WHEN (old.status IN ('active', 'on_hold')) EXECUTE FUNCTION note_client();

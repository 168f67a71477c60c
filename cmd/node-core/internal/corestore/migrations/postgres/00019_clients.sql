-- +goose Up
CREATE TABLE link_changes (
    one     BIGINT PRIMARY KEY CHECK (one = 1),
    version BIGINT NOT NULL
);
INSERT INTO link_changes (one, version) VALUES (1, 1);

ALTER TABLE subscriptions ADD COLUMN limit_devices BIGINT NOT NULL DEFAULT 0;
ALTER TABLE plans         ADD COLUMN limit_devices BIGINT NOT NULL DEFAULT 0;

CREATE TABLE devices (
    id              BIGINT PRIMARY KEY,
    subscription_id BIGINT NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
    hwid            TEXT COLLATE "C" NOT NULL,
    os              TEXT COLLATE "C" NOT NULL DEFAULT '',
    os_version      TEXT COLLATE "C" NOT NULL DEFAULT '',
    model           TEXT COLLATE "C" NOT NULL DEFAULT '',
    user_agent      TEXT COLLATE "C" NOT NULL DEFAULT '',
    name            TEXT COLLATE "C" NOT NULL DEFAULT '',
    first_seen_at   BIGINT NOT NULL,
    last_seen_at    BIGINT NOT NULL,
    UNIQUE (subscription_id, hwid)
);
CREATE TRIGGER note_ids AFTER INSERT ON devices REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_ids();

CREATE TABLE link_fetches (
    subscription_id BIGINT PRIMARY KEY REFERENCES subscriptions (id) ON DELETE CASCADE,
    at              BIGINT NOT NULL,
    user_agent      TEXT COLLATE "C" NOT NULL
);

CREATE TABLE client_templates (
    name       TEXT COLLATE "C" PRIMARY KEY,
    document   TEXT COLLATE "C" NOT NULL,
    changed_at BIGINT NOT NULL
);
CREATE TABLE client_rules (
    name       TEXT COLLATE "C" PRIMARY KEY,
    document   TEXT COLLATE "C" NOT NULL,
    changed_at BIGINT NOT NULL
);

-- It runs at the end of a transaction, so that the row is the last one that the transaction locks, and
-- raises the version once in it.
-- +goose StatementBegin
CREATE FUNCTION raise_link_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('node_core.link_changes', true) IS DISTINCT FROM txid_current()::text THEN
        PERFORM set_config('node_core.link_changes', txid_current()::text, true);
        UPDATE link_changes SET version = version + 1;
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER links_nodes AFTER INSERT OR DELETE ON nodes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_nodes_changed AFTER UPDATE OF name, region, host, ip, registered_at, mtproto, agent, enabled, address ON nodes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN ((old.name, old.region, old.host, old.ip, old.registered_at, old.mtproto, old.agent, old.enabled, old.address)
        IS DISTINCT FROM (new.name, new.region, new.host, new.ip, new.registered_at, new.mtproto, new.agent, new.enabled, new.address))
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_node_protocols AFTER INSERT OR DELETE ON node_protocols DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_node_protocols_changed AFTER UPDATE OF node_id, tag, protocol, listen, port, config, link, status, enabled ON node_protocols DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN ((old.node_id, old.tag, old.protocol, old.listen, old.port, old.config, old.link, old.status, old.enabled)
        IS DISTINCT FROM (new.node_id, new.tag, new.protocol, new.listen, new.port, new.config, new.link, new.status, new.enabled))
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_hosts AFTER INSERT OR DELETE OR UPDATE ON hosts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_access_groups AFTER INSERT OR DELETE ON access_groups DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_access_groups_changed AFTER UPDATE OF everything ON access_groups DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN ((old.everything)
        IS DISTINCT FROM (new.everything))
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_group_nodes AFTER INSERT OR DELETE OR UPDATE ON group_nodes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_group_protocols AFTER INSERT OR DELETE OR UPDATE ON group_protocols DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_client_templates AFTER INSERT OR DELETE OR UPDATE ON client_templates DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_client_rules AFTER INSERT OR DELETE OR UPDATE ON client_rules DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION raise_link_changes();

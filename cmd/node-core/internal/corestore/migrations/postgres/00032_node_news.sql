-- +goose Up
-- Instances keep in memory all that a quiet heartbeat reads (corestore.knownNodes): a change of any of it is
-- told. Of the columns that are not here, notify_changed and notify_reported of 00010 tell.
CREATE TRIGGER notify_known AFTER UPDATE OF auth_key_hash, next_key_hash, told, ip, agent, boot ON nodes FOR EACH ROW
    WHEN ((old.auth_key_hash, old.next_key_hash, old.told, old.ip, old.agent, old.boot)
        IS DISTINCT FROM (new.auth_key_hash, new.next_key_hash, new.told, new.ip, new.agent, new.boot))
    EXECUTE FUNCTION notify_node('reported');

-- +goose Up
CREATE TABLE grants (
    subscription_id BIGINT NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
    node_id         BIGINT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    pace            BIGINT NOT NULL,
    seen_at         BIGINT NOT NULL,
    grant_id        TEXT COLLATE "C" NOT NULL DEFAULT '',
    bytes           BIGINT NOT NULL DEFAULT 0,
    moved           BIGINT NOT NULL DEFAULT 0,
    given_at        BIGINT NOT NULL DEFAULT 0,
    expires_at      BIGINT NOT NULL DEFAULT 0,
    due_at          BIGINT NOT NULL,
    PRIMARY KEY (subscription_id, node_id)
);
CREATE INDEX grants_by_node ON grants (node_id);
CREATE INDEX grants_by_due ON grants (due_at);

CREATE CONSTRAINT TRIGGER links_nodes_serving AFTER UPDATE OF maintenance, budget_action ON nodes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN ((old.maintenance, old.budget_action) IS DISTINCT FROM (new.maintenance, new.budget_action))
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_node_budgets AFTER INSERT OR DELETE ON node_budgets DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION raise_link_changes();
CREATE CONSTRAINT TRIGGER links_node_budgets_changed AFTER UPDATE OF spent ON node_budgets DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (old.spent <> new.spent)
    EXECUTE FUNCTION raise_link_changes();

-- +goose Up
-- What subscriptions that are near their limits may still move, by node: a row for each node on
-- which such a subscription was seen. Bytes are true ones, up and down together.
CREATE TABLE grants (
    subscription_id INTEGER NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
    node_id         INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    pace            INTEGER NOT NULL,           -- bytes per minute, by the last batch of rows
    seen_at         INTEGER NOT NULL,           -- the minute of the last row
    grant_id        TEXT    NOT NULL DEFAULT '', -- the grant that the node's document has; '' for none yet
    bytes           INTEGER NOT NULL DEFAULT 0, -- of that grant
    moved           INTEGER NOT NULL DEFAULT 0, -- bytes of the rows since the minute in which it was given
    given_at        INTEGER NOT NULL DEFAULT 0,
    expires_at      INTEGER NOT NULL DEFAULT 0,
    due_at          INTEGER NOT NULL,           -- when Core looks at the subscription's grants again
    PRIMARY KEY (subscription_id, node_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX grants_by_node ON grants (node_id);
CREATE INDEX grants_by_due ON grants (due_at);

-- Links leave out the nodes that serve nobody.
-- +goose StatementBegin
CREATE TRIGGER links_nodes_serving AFTER UPDATE OF maintenance, budget_action ON nodes WHEN (old.maintenance, old.budget_action) IS NOT (new.maintenance, new.budget_action)
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_node_budgets_changed AFTER UPDATE OF spent ON node_budgets WHEN old.spent != new.spent
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_node_budgets_added AFTER INSERT ON node_budgets WHEN new.spent = 1
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_node_budgets_removed AFTER DELETE ON node_budgets WHEN old.spent = 1
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd

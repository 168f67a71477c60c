-- +goose Up
-- At a commit a transaction may lock the number of events and the row of link_changes, in the order in which
-- it wrote: two transactions waited for each other. The number is locked first now, whichever is needed.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION raise_link_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('node_core.link_changes', true) IS DISTINCT FROM txid_current()::text THEN
        PERFORM set_config('node_core.link_changes', txid_current()::text, true);
        INSERT INTO sqlite_sequence AS s (name, seq) VALUES ('events', 0) ON CONFLICT (name) DO UPDATE SET seq = s.seq;
        UPDATE link_changes SET version = version + 1;
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

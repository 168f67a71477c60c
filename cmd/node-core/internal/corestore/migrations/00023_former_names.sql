-- +goose Up
-- The names that a user had before, so that an erasure takes them out of the audit log too.
CREATE TABLE former_names (
    user_id INTEGER NOT NULL, -- of a user who may be removed
    name    TEXT    NOT NULL,
    until   INTEGER NOT NULL, -- when the user got another name
    PRIMARY KEY (user_id, until, name)
) WITHOUT ROWID, STRICT;

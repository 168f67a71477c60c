-- +goose Up
-- The names that a user had before, so that an erasure takes them out of the audit log too.
CREATE TABLE former_names (
    user_id BIGINT NOT NULL, -- of a user who may be removed
    name    TEXT COLLATE "C" NOT NULL,
    until   BIGINT NOT NULL, -- when the user got another name
    PRIMARY KEY (user_id, until, name)
);

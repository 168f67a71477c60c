-- +goose Up
-- What a subscription has from another panel.
ALTER TABLE subscriptions ADD COLUMN credentials  TEXT COLLATE "C" NOT NULL DEFAULT ''; -- JSON list of what is not derived from the UUID; '' for none
ALTER TABLE subscriptions ADD COLUMN carried_up   BIGINT NOT NULL DEFAULT 0; -- bytes in bytes_up that another panel had counted, of which there are no usage rows
ALTER TABLE subscriptions ADD COLUMN carried_down BIGINT NOT NULL DEFAULT 0;
-- Which panel a user came from, and as whom; '' for a user of this Core. A second import finds the user by it.
ALTER TABLE users ADD COLUMN origin TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX users_by_origin ON users (origin) WHERE origin != '';
-- The security that clients use, where a proxy before the inbound has another one; '' for the inbound's own.
ALTER TABLE hosts ADD COLUMN security TEXT COLLATE "C" NOT NULL DEFAULT '';

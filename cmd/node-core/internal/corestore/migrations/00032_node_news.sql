-- +goose Up
-- PostgreSQL alone has other instances to tell.
SELECT 1;

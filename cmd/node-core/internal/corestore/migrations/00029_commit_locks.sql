-- +goose Up
-- PostgreSQL alone has locks at a commit.
SELECT 1;

-- +goose Up

-- The Stripe account that a run reads, as who enumerated it saw it; no row where the key may not tell. A version of
-- this system that knows nothing of it goes on working beside one that does.
CREATE TABLE IF NOT EXISTS reconciliation_accounts (
  run_id      VARCHAR(64)   NOT NULL PRIMARY KEY,
  account_id  VARCHAR(255)  NOT NULL
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_accounts;

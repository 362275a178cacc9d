-- +goose Up

-- The Stripe account that a run reads, as its enumerator saw it; no row if the key may not read the account. An
-- older version of this system, which does not know the table, works beside a newer one.
CREATE TABLE IF NOT EXISTS reconciliation_accounts (
  run_id      VARCHAR(64)   NOT NULL PRIMARY KEY,
  account_id  VARCHAR(255)  NOT NULL
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_accounts;

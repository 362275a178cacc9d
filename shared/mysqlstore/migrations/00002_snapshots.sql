-- +goose Up

-- Every statement can be run again after one that failed.

-- What Stripe held when the run was swept: one row for each subscription. What nearly each of them has is in
-- columns, the rest in more, which is JSON. Times are Unix seconds; those that do not fit (1970 to 2106) are
-- in more. The hashes stand for ids, which are long and would be repeated in the indexes: whoever looks
-- compares the ids themselves. Few runs have a snapshot at once, so that the hashes need no run beside them.
-- org_hash is NULL where no metadata.orgId names an organization. Rows are numbered as they come, so that the
-- pages of the table fill up.
CREATE TABLE IF NOT EXISTS reconciliation_snapshots (
  id                    INT UNSIGNED  NOT NULL AUTO_INCREMENT PRIMARY KEY,
  run_key               INT           NOT NULL,
  subscription_id       VARCHAR(255)  NOT NULL,
  customer_hash         INT UNSIGNED  NOT NULL,
  org_hash              INT UNSIGNED  NULL,
  customer_id           VARCHAR(255)  NOT NULL,
  org_id                VARCHAR(500)  NOT NULL,
  status                VARCHAR(255)  NOT NULL,
  price_id              VARCHAR(255)  NOT NULL,
  metadata_tier         VARCHAR(500)  NOT NULL,
  created               INT UNSIGNED  NULL,
  current_period_start  INT UNSIGNED  NULL,
  current_period_end    INT UNSIGNED  NULL,
  more                  TEXT          NULL,
  UNIQUE KEY idx_reconciliation_snapshots_subscription (run_key, subscription_id),
  KEY idx_reconciliation_snapshots_customer (customer_hash),
  KEY idx_reconciliation_snapshots_org (org_hash)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What the sweep of a run has yet to read: ranges of creation time, in Unix seconds.
CREATE TABLE IF NOT EXISTS reconciliation_ranges (
  run_id          VARCHAR(64)   NOT NULL,
  created_before  BIGINT        NOT NULL,
  created_from    BIGINT        NOT NULL,
  after_id        VARCHAR(255)  NOT NULL,
  PRIMARY KEY (run_id, created_before)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The sweep of a run: how it stands, when it began, and the live subscriptions that no
-- organization accounts for.
CREATE TABLE IF NOT EXISTS reconciliation_sweeps (
  run_id         VARCHAR(64)   NOT NULL PRIMARY KEY,
  state          VARCHAR(16)   NOT NULL DEFAULT '',
  began_at       DATETIME(6)   NOT NULL,
  orphans        MEDIUMTEXT    NULL,
  orphans_total  INT           NOT NULL DEFAULT 0
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_sweeps;
DROP TABLE IF EXISTS reconciliation_ranges;
DROP TABLE IF EXISTS reconciliation_snapshots;

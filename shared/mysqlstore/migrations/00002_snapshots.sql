-- +goose Up

-- Every statement can be run again after one that failed. They only add tables: a version of this
-- system that knows nothing of them goes on working beside one that does.

-- What Stripe held when the run was swept: one row for each subscription. Times are Unix seconds:
-- Stripe's may lie beyond what a TIMESTAMP holds.
CREATE TABLE IF NOT EXISTS reconciliation_snapshots (
  run_id                VARCHAR(64)   NOT NULL,
  subscription_id       VARCHAR(255)  NOT NULL,
  customer_id           VARCHAR(255)  NOT NULL,
  org_key               VARCHAR(36)   NOT NULL,
  org_id                VARCHAR(500)  NOT NULL,
  status                VARCHAR(255)  NOT NULL,
  price_id              VARCHAR(255)  NOT NULL,
  metadata_tier         VARCHAR(500)  NOT NULL,
  created               BIGINT        NULL,
  current_period_start  BIGINT        NULL,
  current_period_end    BIGINT        NULL,
  trial_end             BIGINT        NULL,
  canceled_at           BIGINT        NULL,
  ended_at              BIGINT        NULL,
  cancel_at_period_end  BOOLEAN       NOT NULL,
  unreadable            BOOLEAN       NOT NULL,
  PRIMARY KEY (run_id, subscription_id),
  KEY idx_reconciliation_snapshots_customer (run_id, customer_id),
  KEY idx_reconciliation_snapshots_org (run_id, org_key)
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

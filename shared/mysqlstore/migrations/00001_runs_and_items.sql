-- +goose Up

-- No transaction spans CREATE TABLE, so each statement can be run again after one that failed.

-- One row for each pass over the organizations. Ids are compared by their bytes (utf8mb4_bin),
-- whatever the collation of the application's tables is. run_key is how the rows of a run's items and
-- of its snapshot name it: they are many, so what they repeat is short.
CREATE TABLE IF NOT EXISTS reconciliation_runs (
  id                VARCHAR(64)  NOT NULL PRIMARY KEY,
  run_key           INT          NOT NULL AUTO_INCREMENT,
  request_id        VARCHAR(64)  NULL UNIQUE,
  status            VARCHAR(32)  NOT NULL,
  dry_run           BOOLEAN      NOT NULL,
  strategy          VARCHAR(16)  NOT NULL,
  org_id            VARCHAR(36)  NOT NULL DEFAULT '',
  total             INT          NOT NULL DEFAULT 0,
  listed            BOOLEAN      NOT NULL DEFAULT FALSE,
  listed_through    VARCHAR(36)  NOT NULL DEFAULT '',
  sent_through      VARCHAR(36)  NOT NULL DEFAULT '',
  lease_owner       VARCHAR(64)  NOT NULL DEFAULT '',
  lease_expires_at  DATETIME(6)  NULL,
  downgrades        INT          NOT NULL DEFAULT 0,
  downgrade_limit   INT          NOT NULL DEFAULT 0,
  subscriptions     INT          NOT NULL DEFAULT 0,
  status_reason     VARCHAR(64)  NOT NULL DEFAULT '',
  status_message    TEXT         NULL,
  stripe_list       BIGINT       NOT NULL DEFAULT 0,
  stripe_retrieve   BIGINT       NOT NULL DEFAULT 0,
  stripe_other      BIGINT       NOT NULL DEFAULT 0,
  stripe_throttled  BIGINT       NOT NULL DEFAULT 0,
  summary           MEDIUMTEXT   NULL,
  summary_revision  INT          NOT NULL DEFAULT 0,
  started_at        DATETIME(6)  NOT NULL,
  deadline_at       DATETIME(6)  NOT NULL,
  finished_at       DATETIME(6)  NULL,
  UNIQUE KEY idx_reconciliation_runs_key (run_key),
  KEY idx_reconciliation_runs_status (status),
  KEY idx_reconciliation_runs_started (started_at)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row for each organization of a run. Nearly all of them are only ever inserted as pending and
-- found to be in sync: what they get then is no longer than what they had, for a page whose rows grow
-- is split, and half of it stays empty. So the first reason is a long one, and updated_at is never NULL:
-- it is when the organization was listed or last decided.
CREATE TABLE IF NOT EXISTS reconciliation_items (
  run_key          INT           NOT NULL,
  org_id           VARCHAR(36)   NOT NULL,
  outcome          ENUM('pending','synced','drifted','skipped','error') NOT NULL DEFAULT 'pending',
  reason           VARCHAR(64)   NOT NULL DEFAULT 'not_decided_yet',
  governed         BOOLEAN       NOT NULL DEFAULT FALSE,
  subscription_id  VARCHAR(120)  NOT NULL DEFAULT '',
  changes          MEDIUMTEXT    NULL,
  warnings         MEDIUMTEXT    NULL,
  error            TEXT          NULL,
  revision         INT           NOT NULL DEFAULT 0,
  updated_at       DATETIME(6)   NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  PRIMARY KEY (run_key, org_id),
  KEY idx_reconciliation_items_outcome (run_key, outcome, reason)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_items;
DROP TABLE IF EXISTS reconciliation_runs;

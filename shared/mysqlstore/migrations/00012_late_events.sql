-- +goose Up

-- Every statement can be run again after one that failed. A version of this system that knows nothing of
-- these tables goes on working beside one that does.

-- Events that an endpoint took after they had been listed as undelivered, from when a catch-up notices that until
-- one that looks after whom they concern has ended well: run_key is that of the one that does.
CREATE TABLE IF NOT EXISTS reconciliation_late (
  event_id          VARCHAR(255)  NOT NULL PRIMARY KEY,
  run_key           INT           NOT NULL,
  type              VARCHAR(64)   NOT NULL,
  pending_webhooks  INT           NOT NULL,
  subscription_id   VARCHAR(255)  NOT NULL,
  customer_id       VARCHAR(255)  NOT NULL,
  org_id            VARCHAR(36)   NOT NULL,
  created_at        DATETIME(6)   NOT NULL,
  KEY idx_reconciliation_late_run (run_key, event_id)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How many events of its window a catch-up could not read in full; no row where it could read all.
CREATE TABLE IF NOT EXISTS reconciliation_unreadable (
  run_id  VARCHAR(64)  NOT NULL PRIMARY KEY,
  events  INT          NOT NULL
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_unreadable;
DROP TABLE IF EXISTS reconciliation_late;

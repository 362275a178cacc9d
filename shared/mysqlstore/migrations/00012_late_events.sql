-- +goose Up

-- Every statement can be run again after one that failed. An older version of this system, which does not know
-- these tables, works beside a newer one.

-- Events that an endpoint took after they had been listed as undelivered. A row lasts from the catch-up that finds
-- this until a catch-up that looked up the event's organizations has completed; run_key is the latter's.
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

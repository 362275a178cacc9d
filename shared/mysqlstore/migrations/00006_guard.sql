-- +goose Up

-- Every statement can be run again after one that failed. An older version of this system, which does not know
-- these tables, works beside a newer one.

-- How many organizations the runs of a kind may lower together within 24 hours from the first: used of most. There
-- is one budget, that of the catch-ups. Downgrades approved for a run are not counted here.
CREATE TABLE IF NOT EXISTS reconciliation_budgets (
  name       VARCHAR(32)  NOT NULL PRIMARY KEY,
  opened_at  DATETIME(6)  NULL,
  used       INT          NOT NULL DEFAULT 0,
  most       INT          NOT NULL DEFAULT 0
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT INTO reconciliation_budgets (name) VALUES ('events') ON DUPLICATE KEY UPDATE name = VALUES(name);

-- What people decided about a run: who started it, whether it may make downgrades that another run's guard
-- withholds, and the limit that was approved for it, by whom and when.
CREATE TABLE IF NOT EXISTS reconciliation_orders (
  run_id           VARCHAR(64)   NOT NULL PRIMARY KEY,
  asked_by         VARCHAR(255)  NOT NULL DEFAULT '',
  allow_downgrade  BOOLEAN       NOT NULL DEFAULT FALSE,
  approved_limit   INT           NULL,
  approved_by      VARCHAR(255)  NOT NULL DEFAULT '',
  approved_at      DATETIME(6)   NULL
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_orders;
DROP TABLE IF EXISTS reconciliation_budgets;

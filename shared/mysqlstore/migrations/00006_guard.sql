-- +goose Up

-- Every statement can be run again after one that failed. A version of this system that knows nothing of
-- these tables goes on working beside one that does.

-- How many organizations the runs of a kind may lower together: used of most, within 24 hours of the first
-- one's time. There is one, that of the catch-ups. What was approved for a run is not counted here.
CREATE TABLE IF NOT EXISTS reconciliation_budgets (
  name       VARCHAR(32)  NOT NULL PRIMARY KEY,
  opened_at  DATETIME(6)  NULL,
  used       INT          NOT NULL DEFAULT 0,
  most       INT          NOT NULL DEFAULT 0
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT INTO reconciliation_budgets (name) VALUES ('events') ON DUPLICATE KEY UPDATE name = VALUES(name);

-- What people decided about a run: who asked for it, whether it may lower what a guard holds back, and the
-- limit that was approved for it, by whom and when.
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

-- +goose Up

-- When a run repaired an organization: by this, what was repaired lately is found without going through the
-- items of every run. What was written stands in the run's item. A version of this system that knows nothing of
-- it goes on working beside one that does.
CREATE TABLE IF NOT EXISTS reconciliation_repairs (
  org_id      VARCHAR(36)  NOT NULL,
  run_key     INT          NOT NULL,
  written_at  DATETIME(6)  NOT NULL,
  PRIMARY KEY (org_id, run_key),
  KEY idx_reconciliation_repairs_written (written_at)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_repairs;

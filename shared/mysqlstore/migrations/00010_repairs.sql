-- +goose Up

-- When a run repaired an organization, so that recent repairs are found without reading the items of every run.
-- The run's item holds what was written. An older version of this system, which does not know the table, works
-- beside a newer one.
CREATE TABLE IF NOT EXISTS reconciliation_repairs (
  org_id      VARCHAR(36)  NOT NULL,
  run_key     INT          NOT NULL,
  written_at  DATETIME(6)  NOT NULL,
  PRIMARY KEY (org_id, run_key),
  KEY idx_reconciliation_repairs_written (written_at)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_repairs;

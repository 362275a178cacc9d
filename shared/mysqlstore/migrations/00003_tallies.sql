-- +goose Up

-- How many plainly skipped items of a run were deleted to save space, by reason. An older version of this
-- system, which does not know the table, works beside a newer one.
CREATE TABLE IF NOT EXISTS reconciliation_tallies (
  run_key   INT          NOT NULL,
  reason    VARCHAR(64)  NOT NULL,
  governed  BOOLEAN      NOT NULL,
  items     INT          NOT NULL,
  PRIMARY KEY (run_key, reason, governed)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_tallies;

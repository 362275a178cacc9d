-- +goose Up

-- The revision of the summary that a run's archived reports show, and the lease of the process that writes them. A
-- run needs archiving while its summary has a later revision, which survives a crash. The lease keeps an older
-- report from replacing a newer one. The runs tried least recently come first. An older version of this system,
-- which does not know the table, works beside a newer one.
CREATE TABLE IF NOT EXISTS reconciliation_archives (
  run_id            VARCHAR(64)  NOT NULL PRIMARY KEY,
  revision          INT          NOT NULL DEFAULT 0,
  lease_owner       VARCHAR(64)  NOT NULL DEFAULT '',
  lease_expires_at  DATETIME(6)  NULL,
  tried_at          DATETIME(6)  NULL
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_archives;

-- +goose Up

-- Up to which revision of its summary the reports of a run were archived, and who is at it. A run is to be
-- archived while its summary has a later revision: that survives whoever dies. Reports are written under a
-- lease, so that an older one never comes after a newer one. Runs that were tried last wait behind others. A
-- version of this system that knows nothing of it goes on working beside one that does.
CREATE TABLE IF NOT EXISTS reconciliation_archives (
  run_id            VARCHAR(64)  NOT NULL PRIMARY KEY,
  revision          INT          NOT NULL DEFAULT 0,
  lease_owner       VARCHAR(64)  NOT NULL DEFAULT '',
  lease_expires_at  DATETIME(6)  NULL,
  tried_at          DATETIME(6)  NULL
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_archives;

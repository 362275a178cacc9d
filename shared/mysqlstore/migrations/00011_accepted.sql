-- +goose Up

-- Errors and warnings about organizations that people have accepted: they are counted apart, until until_at if
-- it is set.
CREATE TABLE IF NOT EXISTS reconciliation_accepted (
  org_id       VARCHAR(36)    NOT NULL,
  code         VARCHAR(64)    NOT NULL,
  why          VARCHAR(1000)  NOT NULL,
  accepted_by  VARCHAR(255)   NOT NULL,
  accepted_at  DATETIME(6)    NOT NULL,
  until_at     DATETIME(6)    NULL,
  PRIMARY KEY (org_id, code)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_accepted;

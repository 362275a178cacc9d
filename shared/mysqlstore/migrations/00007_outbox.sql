-- +goose Up

-- Announcements that the application's event bus has not accepted yet. A row is written in the transaction that
-- it announces and deleted once the bus has accepted it. seq is the order. A refused announcement waits until
-- next_try_at, behind the others, whose next_try_at is long ago. run_id is set for the end of a run, which has at
-- most one row: that of its latest end. An older version of this system, which does not know the table, works
-- beside a newer one.
CREATE TABLE IF NOT EXISTS reconciliation_outbox (
  seq          BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
  id           CHAR(36)     NOT NULL,
  type         VARCHAR(64)  NOT NULL,
  run_id       VARCHAR(64)  NULL,
  detail       MEDIUMTEXT   NOT NULL,
  created_at   DATETIME(6)  NOT NULL,
  attempts     INT          NOT NULL DEFAULT 0,
  next_try_at  DATETIME(6)  NOT NULL DEFAULT '2000-01-01 00:00:00',
  last_error   TEXT         NULL,
  UNIQUE KEY idx_reconciliation_outbox_id (id),
  UNIQUE KEY idx_reconciliation_outbox_run (run_id),
  KEY idx_reconciliation_outbox_next (next_try_at, seq)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_outbox;

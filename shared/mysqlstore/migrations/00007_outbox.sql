-- +goose Up

-- What is to be announced on the application's event bus and was not accepted there yet. A row is written in
-- the transaction of what it tells, and goes when the bus took it. seq is the order; what was refused waits
-- until next_try_at, behind the others, whose next_try_at is long ago. run_id is that of a run whose end is
-- told, which has one row at most, of the latest end. A version of this system that knows nothing of it goes
-- on working beside one that does.
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

-- +goose Up

-- Every statement can be run again after one that failed. An older version of this system, which does not know
-- these tables, works beside a newer one.

-- The part of Stripe's event log that a catch-up reads, both ends included, and its cursor. own_since: a person
-- chose this beginning, so the next catch-up does not continue from this window.
CREATE TABLE IF NOT EXISTS reconciliation_windows (
  run_id     VARCHAR(64)   NOT NULL PRIMARY KEY,
  from_at    DATETIME(6)   NOT NULL,
  to_at      DATETIME(6)   NOT NULL,
  own_since  BOOLEAN       NOT NULL,
  expired    BOOLEAN       NOT NULL,
  state      VARCHAR(16)   NOT NULL DEFAULT '',
  after_id   VARCHAR(255)  NOT NULL DEFAULT ''
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The latest event of each subscription that a catch-up has read and has yet to look up. The subject is the
-- subscription, or the event if it names none.
CREATE TABLE IF NOT EXISTS reconciliation_events (
  run_key           INT           NOT NULL,
  subject           VARCHAR(255)  NOT NULL,
  event_id          VARCHAR(255)  NOT NULL,
  type              VARCHAR(64)   NOT NULL,
  pending_webhooks  INT           NOT NULL,
  subscription_id   VARCHAR(255)  NOT NULL,
  customer_id       VARCHAR(255)  NOT NULL,
  org_id            VARCHAR(36)   NOT NULL,
  created_at        DATETIME(6)   NOT NULL,
  PRIMARY KEY (run_key, subject)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The subscriptions that events name for an organization of a catch-up, and the latest event of each.
CREATE TABLE IF NOT EXISTS reconciliation_named (
  run_key           INT           NOT NULL,
  org_id            VARCHAR(36)   NOT NULL,
  subscription_id   VARCHAR(255)  NOT NULL,
  event_id          VARCHAR(255)  NOT NULL,
  type              VARCHAR(64)   NOT NULL,
  pending_webhooks  INT           NOT NULL,
  created_at        DATETIME(6)   NOT NULL,
  PRIMARY KEY (run_key, org_id, subscription_id)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Events that some endpoint had not taken when they were last listed, at seen_at by the catch-up of seen_key.
CREATE TABLE IF NOT EXISTS reconciliation_undelivered (
  event_id          VARCHAR(255)  NOT NULL PRIMARY KEY,
  type              VARCHAR(64)   NOT NULL,
  pending_webhooks  INT           NOT NULL,
  subscription_id   VARCHAR(255)  NOT NULL,
  customer_id       VARCHAR(255)  NOT NULL,
  org_id            VARCHAR(36)   NOT NULL,
  created_at        DATETIME(6)   NOT NULL,
  seen_key          INT           NOT NULL,
  seen_at           DATETIME(6)   NOT NULL,
  KEY idx_reconciliation_undelivered_seen (seen_key)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_undelivered;
DROP TABLE IF EXISTS reconciliation_named;
DROP TABLE IF EXISTS reconciliation_events;
DROP TABLE IF EXISTS reconciliation_windows;

-- The web application's tables, as the application creates them. Reconciliation reads and repairs
-- their rows and never alters the tables. This copy is for tests and for a first look.
CREATE TABLE organizations (
  id                      CHAR(36)     NOT NULL PRIMARY KEY,
  name                    VARCHAR(160) NOT NULL,
  created_by              VARCHAR(128) NOT NULL,
  stripe_customer_id      VARCHAR(120) NULL,
  subscription_status     ENUM('active','trialing','past_due','incomplete','canceled') NOT NULL DEFAULT 'incomplete',
  subscription_tier       ENUM('free','starter','pro','max') NOT NULL DEFAULT 'free',
  trial_ends_at           TIMESTAMP    NULL,
  last_billing_warning_at TIMESTAMP    NULL,
  created_at              TIMESTAMP    NOT NULL DEFAULT CURRENT_TIMESTAMP,
  updated_at              TIMESTAMP    NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  is_deleted              INT          NOT NULL DEFAULT 0
);

CREATE TABLE subscriptions (
  id                     CHAR(36)     NOT NULL PRIMARY KEY,
  org_id                 CHAR(36)     NOT NULL,
  stripe_subscription_id VARCHAR(120) NULL UNIQUE,
  stripe_price_id        VARCHAR(120) NULL,
  stripe_customer_id     VARCHAR(120) NULL,
  plan_tier              ENUM('free','starter','pro','max') NOT NULL DEFAULT 'free',
  status                 ENUM('active','trialing','past_due','canceled','incomplete','incomplete_expired','unpaid') NOT NULL DEFAULT 'incomplete',
  current_period_start   TIMESTAMP    NULL,
  current_period_end     TIMESTAMP    NULL,
  trial_end              TIMESTAMP    NULL,
  cancel_at_period_end   BOOLEAN      NULL DEFAULT FALSE,
  canceled_at            TIMESTAMP    NULL,
  ended_at               TIMESTAMP    NULL,
  created_at             TIMESTAMP    NOT NULL DEFAULT CURRENT_TIMESTAMP,
  updated_at             TIMESTAMP    NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  KEY idx_subscriptions_org (org_id),
  KEY idx_subscriptions_stripe (stripe_subscription_id),
  KEY idx_subscriptions_status (status),
  KEY idx_subscriptions_tier (plan_tier),
  CONSTRAINT fk_subscriptions_org FOREIGN KEY (org_id) REFERENCES organizations(id) ON DELETE CASCADE
);

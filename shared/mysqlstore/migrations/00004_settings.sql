-- +goose Up

-- What is to be known of this database by everybody who works on it: 'stage', whose functions do. A
-- version of this system that knows nothing of it goes on working beside one that does.
CREATE TABLE IF NOT EXISTS reconciliation_settings (
  name     VARCHAR(64)   NOT NULL PRIMARY KEY,
  content  VARCHAR(255)  NOT NULL
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_settings;

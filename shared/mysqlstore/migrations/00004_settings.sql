-- +goose Up

-- Facts about this database that every program on it must know, such as the stage of its functions. An older
-- version of this system, which does not know the table, works beside a newer one.
CREATE TABLE IF NOT EXISTS reconciliation_settings (
  name     VARCHAR(64)   NOT NULL PRIMARY KEY,
  content  VARCHAR(255)  NOT NULL
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS reconciliation_settings;

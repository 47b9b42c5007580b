-- A database that was copied to another one, or is being filled by a copy: nobody may work on it.
CREATE TABLE IF NOT EXISTS moves (
    role  VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY CHECK (role IN ('source', 'target')),
    other LONGTEXT NOT NULL,
    at    BIGINT   NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

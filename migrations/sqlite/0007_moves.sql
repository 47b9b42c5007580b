-- A database that was copied to another one, or is being filled by a copy: nobody may work on it.
CREATE TABLE moves (
    role  TEXT   PRIMARY KEY NOT NULL CHECK (role IN ('source', 'target')),
    other TEXT   NOT NULL,
    at    BIGINT NOT NULL
);

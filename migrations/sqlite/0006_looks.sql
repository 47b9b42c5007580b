-- When a claim should look at a lane, so that it looks at no others. `ready`: now, in the order of
-- `look_at`. Else `look_at` is the instant, and null if no open job is known. `rest` counts the
-- looks that found nothing in a row.
ALTER TABLE lanes ADD COLUMN ready BIGINT NOT NULL DEFAULT 1;
ALTER TABLE lanes ADD COLUMN look_at BIGINT DEFAULT 0;
ALTER TABLE lanes ADD COLUMN rest BIGINT NOT NULL DEFAULT 0;
CREATE INDEX lanes_ready ON lanes (tenant, look_at, id) WHERE ready = 1;
CREATE INDEX lanes_look ON lanes (look_at, id) WHERE ready = 0;

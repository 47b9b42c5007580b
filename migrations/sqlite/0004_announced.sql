-- Until when a job counts as told of: ticks look ahead and announce what is due, and tell of nothing twice.
ALTER TABLE jobs ADD COLUMN woken_until BIGINT;

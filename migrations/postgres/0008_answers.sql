-- The attempt that delivered a job is kept in the job's row: most jobs have no other, and a row of
-- its own costs as much as the job's. `took_ms` is null where no attempt is kept here.
ALTER TABLE jobs ADD COLUMN took_ms BIGINT;
ALTER TABLE jobs ADD COLUMN status BIGINT;
ALTER TABLE jobs ADD COLUMN response BYTEA;

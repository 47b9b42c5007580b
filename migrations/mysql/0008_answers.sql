-- The attempt that delivered a job is kept in the job's row: most jobs have no other, and a row of
-- its own costs as much as the job's. `took_ms` is null where no attempt is kept here.
SET @answers = IF(
    (SELECT COUNT(*) FROM information_schema.columns
     WHERE table_schema = DATABASE() AND table_name = 'jobs' AND column_name = 'took_ms') = 0,
    'ALTER TABLE jobs ADD COLUMN took_ms BIGINT, ADD COLUMN status BIGINT, ADD COLUMN response LONGBLOB',
    'DO 0');
PREPARE answers FROM @answers;
EXECUTE answers;
DEALLOCATE PREPARE answers;

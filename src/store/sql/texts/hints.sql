-- Jobs that nobody has announced to workers. Texts that every database can share.

-- Leased jobs are skipped. So are jobs that have been due for less than five seconds: whoever made
-- them due announced them. After that time the announcement counts as lost. At most so many of each
-- lane, so that a blocked backlog does not hide the others.
-- name: unannounced
SELECT due.id, CASE WHEN due.at > :now THEN due.at - :now ELSE 0 END AS at FROM (
    SELECT place.id, CASE
        WHEN l.open_until > place.due_at AND l.open_until >= COALESCE(l.probe_until, 0)
            THEN l.open_until
        WHEN l.probe_until > place.due_at THEN l.probe_until
        ELSE place.due_at END AS at
    FROM (
        SELECT * FROM (
            SELECT id, open_until, probe_until FROM lanes WHERE ready = 1 AND paused = 0
            ORDER BY tenant, look_at, id LIMIT 400
        ) AS waiting
        UNION ALL SELECT * FROM (
            SELECT id, open_until, probe_until FROM lanes
            WHERE ready = 0 AND look_at <= :now + :ahead AND paused = 0
            ORDER BY look_at, id LIMIT 400
        ) AS timed
    ) AS l JOIN (
        SELECT j.id, j.due_at, j.lane,
            ROW_NUMBER() OVER (PARTITION BY j.lane ORDER BY j.due_at) AS n
        FROM lanes l JOIN jobs j ON j.lane = l.id
        WHERE j.finished_at IS NULL AND j.due_at <= :now + :ahead
          AND (j.state = 'pending' OR j.due_at <= :now)
          AND (j.woken_until IS NULL OR j.woken_until <= :now OR j.woken_until < j.due_at
               OR j.woken_until < l.open_until OR j.woken_until < l.probe_until)
    ) AS place ON place.lane = l.id AND place.n <= :most
) AS due
WHERE due.at <= :now + :ahead AND (due.at > :now OR due.at <= :now - :overdue)
ORDER BY due.at, due.id LIMIT :most;

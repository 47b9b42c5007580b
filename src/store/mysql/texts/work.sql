-- Claims, leases and outcomes on MySQL and MariaDB. Neither returns what an UPDATE changed, so rows
-- are locked and read first, then changed. What a statement scans it locks: every one goes by key
-- or by the index of due jobs, at READ COMMITTED.

-- By groups of an index, which goes from one tenant to the next. In the shared text, which steps by
-- a query of its own, each step would walk over all lanes before it.
-- name: ready_tenants
SELECT tenant AS name FROM lanes FORCE INDEX (lanes_ready)
WHERE ready = 1 AND tenant > :behind
GROUP BY ready, tenant ORDER BY ready, tenant LIMIT :most;

-- name: due
SELECT id, event_id, target_kind, target_name, lane, attempt, lost, deaths, begun, claim, due_at,
    created_at, state AS was, :now AS now
FROM jobs FORCE INDEX (jobs_due)
WHERE finished_at IS NULL AND lane = :lane AND due_at <= :now
ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED;

-- name: due_of
SELECT id, event_id, target_kind, target_name, lane, attempt, lost, deaths, begun, claim, due_at,
    created_at, state AS was, :now AS now
FROM jobs FORCE INDEX (PRIMARY)
WHERE id IN (:only...) AND lane = :lane AND finished_at IS NULL AND due_at <= :now
ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED;

-- name: lease
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    job VARCHAR(26) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
        PATH '$.job', until BIGINT PATH '$.until',
    sent BIGINT PATH '$.sent', interrupted BIGINT PATH '$.interrupted',
    crashes BIGINT PATH '$.crashes')) AS r
STRAIGHT_JOIN jobs ON jobs.id = r.job
SET jobs.state = 'leased', jobs.claim = jobs.claim + 1, jobs.due_at = r.until,
    jobs.attempt = r.sent, jobs.lost = r.interrupted, jobs.deaths = r.crashes;

-- name: update_lanes
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    lane VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.lane',
    failures BIGINT PATH '$.failures', open_until BIGINT PATH '$.open_until',
    probe_until BIGINT PATH '$.probe_until', ramp BIGINT PATH '$.ramp',
    millitokens BIGINT PATH '$.millitokens', refilled_at BIGINT PATH '$.refilled_at',
    turn BIGINT PATH '$.turn')) AS r
STRAIGHT_JOIN lanes ON lanes.id = r.lane
SET lanes.failures = r.failures, lanes.open_until = r.open_until,
    lanes.probe_until = r.probe_until, lanes.ramp = r.ramp, lanes.tokens = r.millitokens / 1000.0,
    lanes.refilled_at = r.refilled_at, lanes.turn = r.turn;

-- Those of these lanes that nobody looks at in time for jobs that become due at an instant or after
-- a delay. Read without locks, so that nobody waits for a lane that is being claimed from.
-- name: lanes_to_wake
SELECT n.lane AS id, CASE WHEN l.look_at <= :now + 1000 THEN :now
    ELSE GREATEST(n.at, COALESCE(l.open_until, 0), COALESCE(l.probe_until, 0)) END AS at
FROM (
    SELECT r.lane, GREATEST(:now, LEAST(COALESCE(r.due, 9000000000000000),
        :now + COALESCE(r.delay, 9000000000000000))) AS at
    FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
        lane VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.lane',
        due BIGINT PATH '$.due', delay BIGINT PATH '$.delay')) AS r
) AS n STRAIGHT_JOIN lanes l ON l.id = n.lane
WHERE l.ready = 0 AND l.paused = 0
  AND (l.look_at IS NULL OR l.look_at <= :now + 1000
       OR l.look_at > GREATEST(n.at, COALESCE(l.open_until, 0), COALESCE(l.probe_until, 0)));

-- name: wake_lanes
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    lane VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.lane',
    due BIGINT PATH '$.due')) AS r
STRAIGHT_JOIN lanes ON lanes.id = r.lane
SET lanes.ready = IF(r.due <= :now, 1, 0), lanes.look_at = r.due, lanes.rest = 0
WHERE lanes.ready = 0 AND lanes.paused = 0;

-- name: set_looks
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    lane VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.lane',
    ready BIGINT PATH '$.ready', look_at BIGINT PATH '$.look_at', rest BIGINT PATH '$.rest')) AS r
STRAIGHT_JOIN lanes ON lanes.id = r.lane
SET lanes.ready = r.ready, lanes.look_at = r.look_at, lanes.rest = r.rest, lanes.turn = :now;

-- An attempt that counted as interrupted is replaced by what is known of it now. `ending` changes
-- last: the assignments run in order.
-- name: insert_attempts
INSERT INTO attempts (job_id, claim, number, ending, code, status, error, duration_ms, response, at)
SELECT r.job_id, r.claim, r.number, r.ending, r.code, r.status, r.error, r.duration_ms,
    UNHEX(r.response), :now
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    job_id VARCHAR(26) PATH '$.job_id', claim BIGINT PATH '$.claim', number BIGINT PATH '$.number',
    ending VARCHAR(20) PATH '$.ending', code VARCHAR(100) PATH '$.code',
    status BIGINT PATH '$.status', error LONGTEXT PATH '$.error',
    duration_ms BIGINT PATH '$.duration_ms', response LONGTEXT PATH '$.response')) AS r
ON DUPLICATE KEY UPDATE
    number = IF(attempts.ending = 'interrupted', VALUES(number), attempts.number),
    code = IF(attempts.ending = 'interrupted', VALUES(code), attempts.code),
    status = IF(attempts.ending = 'interrupted', VALUES(status), attempts.status),
    error = IF(attempts.ending = 'interrupted', VALUES(error), attempts.error),
    duration_ms = IF(attempts.ending = 'interrupted', VALUES(duration_ms), attempts.duration_ms),
    response = IF(attempts.ending = 'interrupted', VALUES(response), attempts.response),
    at = IF(attempts.ending = 'interrupted', VALUES(at), attempts.at),
    ending = IF(attempts.ending = 'interrupted', VALUES(ending), attempts.ending);

-- Finds records that were committed although their answer was lost: the claim is still the last
-- one, and the job is not leased any more.
-- name: recorded
SELECT jobs.id FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    job VARCHAR(26) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.job',
    claim BIGINT PATH '$.claim',
    next VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.next')) AS r
STRAIGHT_JOIN jobs ON jobs.id = r.job
WHERE jobs.claim = r.claim AND jobs.state = r.next;

-- Those of these jobs that are under the lease of this claim.
-- name: lock_leased
SELECT jobs.id FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    job VARCHAR(26) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.job',
    claim BIGINT PATH '$.claim')) AS r
STRAIGHT_JOIN jobs ON jobs.id = r.job
WHERE jobs.claim = r.claim AND jobs.state = 'leased' FOR UPDATE;

-- `due_at` of a leased job is the end of its lease: from then on it may be claimed again.
-- name: extend
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    job VARCHAR(26) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.job',
    claim BIGINT PATH '$.claim')) AS r
STRAIGHT_JOIN jobs ON jobs.id = r.job AND jobs.claim = r.claim
SET jobs.due_at = :now + :by
WHERE jobs.state = 'leased';

-- `after` moves the due time, `ended` is 0 for a job that ends here and null for one that goes on;
-- `took` is set for the attempt that delivered the job.
-- name: record
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    job VARCHAR(26) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.job',
    claim BIGINT PATH '$.claim', next VARCHAR(20) PATH '$.next', sent BIGINT PATH '$.sent',
    after_ms BIGINT PATH '$.after', lost BIGINT PATH '$.lost', ended BIGINT PATH '$.ended',
    error LONGTEXT PATH '$.error', took BIGINT PATH '$.took', status BIGINT PATH '$.status',
    response LONGTEXT PATH '$.response')) AS r
STRAIGHT_JOIN jobs ON jobs.id = r.job AND jobs.claim = r.claim
SET jobs.state = r.next, jobs.attempt = r.sent, jobs.lost = jobs.lost + r.lost,
    jobs.due_at = :now + r.after_ms, jobs.finished_at = :now + r.ended,
    jobs.took_ms = r.took, jobs.status = r.status, jobs.response = UNHEX(r.response),
    jobs.last_error = COALESCE(r.error, jobs.last_error)
WHERE jobs.state = 'leased';

-- Messages that consumers hold, by the end of their lease: what nobody acknowledged is found without
-- reading what nobody has received yet.
CREATE INDEX jobs_pulled ON jobs (lane, due_at) WHERE state = 'leased' AND target_kind = 'queue';

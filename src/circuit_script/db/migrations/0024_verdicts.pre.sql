-- Verdicts of the Judgment Protocol are counted, and executions of records that it holds have an end of their own.

CREATE TABLE circuit.verdicts (
    day    date NOT NULL DEFAULT current_date,
    source text NOT NULL,
    action text NOT NULL,
    n      bigint NOT NULL,
    PRIMARY KEY (day, source, action)
);
COMMENT ON COLUMN circuit.verdicts.source IS 'the kind of place: record, prompt, tool, answer, api';

SELECT circuit.of_road('circuit.verdicts');

-- What there is fits the narrower rule that held before, so nothing is read through while everybody waits.
ALTER TABLE circuit.executions DROP CONSTRAINT executions_status_check;
DO $$
DECLARE
    child regclass;
BEGIN
    FOR child IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'circuit.executions'::regclass LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS executions_status_check', child);
    END LOOP;
END $$;
ALTER TABLE circuit.executions ADD CONSTRAINT executions_status_check CHECK (status IN (
    'succeeded', 'partial', 'failed', 'breached', 'held', 'cancelled', 'deferred', 'echo')) NOT VALID;

-- Its line in the log is no error: nothing failed, and no row that the index has is of this kind.
CREATE OR REPLACE FUNCTION circuit.ended_level(status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN status IN ('cancelled', 'deferred') THEN 'info' WHEN status = 'held' THEN 'warning' ELSE 'error' END;

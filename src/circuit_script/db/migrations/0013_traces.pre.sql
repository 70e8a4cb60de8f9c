-- Traces: what the broker served an execution, one row each, partitioned like the executions themselves.

-- `trace` is the execution's own id, or the trace id that came with what started it; `parent` is then the span that
-- sent it (16 hex digits). `links` are the traces of a batch whose events came with several. A span is
-- [number, name, kind, start (µs after the execution's), duration (µs), status, attributes].
CREATE TABLE circuit.traces (
    execution uuid PRIMARY KEY,
    tenant    text NOT NULL,
    trace     uuid NOT NULL,
    parent    text,
    links     uuid[],
    spans     jsonb NOT NULL
) PARTITION BY RANGE (execution);
-- Only what came with a trace of its own pays for finding it by that.
CREATE INDEX traces_trace ON circuit.traces (trace) WHERE trace <> execution;
CREATE INDEX traces_links ON circuit.traces USING gin (links) WHERE links IS NOT NULL;
CREATE TABLE circuit.traces_other PARTITION OF circuit.traces DEFAULT;

CREATE OR REPLACE FUNCTION circuit.make_partitions(days integer) RETURNS integer
LANGUAGE sql AS $$
    SELECT count(*)::integer
    FROM unnest(ARRAY['deliveries', 'events', 'executions', 'outcomes', 'circuit_logs', 'traces']) AS parent,
         generate_series(-1, days) AS n
    WHERE circuit.make_partition(parent, (now() AT TIME ZONE 'UTC')::date + n)
$$;
SELECT circuit.make_partitions(7);

-- The trace that goes on with an effect, where it is not that of its execution.
ALTER TABLE circuit.effects ADD COLUMN trace uuid;

-- Effects that an outcome has just made, and the traces that they go on with.
CREATE FUNCTION circuit.trace_effects(t_id uuid[], t_trace uuid[]) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE circuit.effects e SET trace = t.trace FROM unnest(t_id, t_trace) AS t (id, trace) WHERE e.id = t.id;
    RETURN true;
END $$;

SELECT circuit.of_tenant('circuit.traces');

-- Alerts: what was found wrong, who has been told of it, and the counts behind the service level objectives.

-- One row from the moment at which something is found until it is over. `key` says what it is about: of one key at
-- most one row is open. An alert about one tenant has its `tenant`; what concerns several has none, and beside it stand
-- rows of the tenants concerned, with their own figures, whose `part_of` is the key of the whole while that is open.
-- `last` is when it was seen last, `told` by channel what it was told and when, `settled` that nothing is left to tell.
CREATE TABLE circuit.alerts (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key             text NOT NULL CHECK (octet_length(key) <= 500),
    rule            text NOT NULL,
    severity        text NOT NULL CHECK (severity IN ('notice', 'warning', 'critical')),
    tenant          text,
    part_of         text,
    what            text NOT NULL,
    hits            jsonb NOT NULL DEFAULT '[]',
    handlers        text[] NOT NULL DEFAULT '{}',
    next            text NOT NULL DEFAULT '',
    link            text NOT NULL DEFAULT '',
    size            float8 NOT NULL DEFAULT 0,
    since           timestamptz NOT NULL,
    last            timestamptz NOT NULL,
    resolved        timestamptz,
    acknowledged_by text,
    acknowledged_at timestamptz,
    silenced_by     text,
    silenced_until  timestamptz,
    told            jsonb NOT NULL DEFAULT '{}',
    settled         boolean NOT NULL DEFAULT false,
    CHECK ((acknowledged_by IS NULL) = (acknowledged_at IS NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON COLUMN circuit.alerts.hits IS 'whom it hits: pairs of a tenant and its figures in words';
COMMENT ON COLUMN circuit.alerts.size IS 'how much of it there is; told again when it is ten times what was told';
COMMENT ON COLUMN circuit.alerts.silenced_until IS 'nobody is told until then; an alert of the same key keeps to it';
CREATE UNIQUE INDEX alerts_open ON circuit.alerts (key) WHERE resolved IS NULL;
CREATE INDEX alerts_unsettled ON circuit.alerts (id) WHERE NOT settled;
CREATE INDEX alerts_key ON circuit.alerts (key, id);
CREATE INDEX alerts_tenant ON circuit.alerts (tenant, id) WHERE tenant IS NOT NULL;

-- Who looks, of all workers: one at a time, by the database's clock. Executions before `counted` are in slo_counts, and
-- deliveries before `taken`; `refused` is how many refusals that were our own fault had been counted then.
CREATE TABLE circuit.monitor (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    owner    uuid,
    until    timestamptz NOT NULL DEFAULT '-infinity',
    counted  uuid,
    taken    uuid,
    refused  bigint
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- How often each objective was missed, by minute for hours and by hour for months. `handler` is empty where it is about
-- deliveries.
CREATE TABLE circuit.slo_counts (
    grain   text NOT NULL CHECK (grain IN ('minute', 'hour')),
    at      timestamptz NOT NULL,
    slo     text NOT NULL,
    handler text NOT NULL,
    total   bigint NOT NULL,
    bad     bigint NOT NULL,
    PRIMARY KEY (grain, at, slo, handler)
) WITH (fillfactor = 70);

-- Whether each channel can be told: one row each, for who looks.
CREATE TABLE circuit.alert_channels (
    channel   text PRIMARY KEY,
    told_at   timestamptz,
    failed_at timestamptz,
    failure   text,
    failures  integer NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Scores of one grade by their time: hot leads that nobody has taken are few, and all scores are many. Made here where
-- there are few records; else nobody could write one until it is made, so maintenance builds it while all goes on.
CREATE FUNCTION circuit.index_of_grades_to_build()
RETURNS TABLE (part text, index text, build text, attach text)
LANGUAGE sql STABLE AS $$
    SELECT 'records', 'records_graded',
           $build$CREATE INDEX CONCURRENTLY records_graded ON circuit.records ((data ->> 'grade'), created_at)
               WHERE object = 'LeadScore' AND octet_length(data ->> 'grade') <= 20$build$,
           'SELECT'
    WHERE NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('circuit.records_graded') AND indisvalid)
$$;

DO $$
BEGIN
    IF pg_relation_size('circuit.records') <= 64000000 THEN
        EXECUTE (SELECT replace(build, ' CONCURRENTLY ', ' ') FROM circuit.index_of_grades_to_build());
    END IF;
END $$;

-- To whom else something is told is no tenant's business.
SELECT circuit.of_tenant('circuit.alerts', '(id, key, rule, severity, tenant, part_of, what, hits, handlers, next, link,
    size, since, last, resolved, acknowledged_by, acknowledged_at, silenced_by, silenced_until)');
SELECT circuit.of_road('circuit.monitor');
SELECT circuit.of_road('circuit.slo_counts');
SELECT circuit.of_road('circuit.alert_channels');

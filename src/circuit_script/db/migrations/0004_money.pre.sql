-- Money: what may be spent on models is reserved before a call at its worst case, and settled after it at its cost.
-- All amounts are whole nano-dollars. Days and months are UTC, by the clock of this database.

CREATE FUNCTION circuit.budget_day() RETURNS date
LANGUAGE sql VOLATILE
RETURN (clock_timestamp() AT TIME ZONE 'UTC')::date;

-- One row per call that was to be made. `worst` counts until there is a `cost`.
-- reserved: under way, or its worker crashed; settled: its cost is known; unknown: it ended without one, so that its
-- worst case counts until a person says otherwise.
CREATE TABLE circuit.llm_calls (
    id            uuid PRIMARY KEY,
    execution     uuid NOT NULL,
    tenant        text NOT NULL,
    handler       text NOT NULL,
    record        text,
    provider      text NOT NULL,
    model         text NOT NULL,
    requested     text NOT NULL,
    answered      text,
    tokens_in     integer,
    tokens_out    integer,
    tokens_cached integer,
    tokens_worst  bigint NOT NULL,
    worst         bigint NOT NULL CHECK (worst >= 0),
    cost          bigint CHECK (cost >= 0),
    status        text NOT NULL DEFAULT 'reserved' CHECK (status IN ('reserved', 'settled', 'unknown')),
    reason        text,
    day           date NOT NULL,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at    timestamptz,
    settled_by    text,
    CHECK ((status = 'reserved') = (cost IS NULL)),
    CHECK ((status = 'reserved') = (settled_at IS NULL))
) WITH (fillfactor = 80);
COMMENT ON COLUMN circuit.llm_calls.day IS 'the day to which it belongs, also when it is settled on another';
COMMENT ON COLUMN circuit.llm_calls.settled_by IS 'the person who reconciled it; null where the platform settled it';
CREATE INDEX llm_calls_day ON circuit.llm_calls (day, tenant);
CREATE INDEX llm_calls_execution ON circuit.llm_calls (execution);
CREATE INDEX llm_calls_open ON circuit.llm_calls (id) WHERE status <> 'settled';

-- What a call was before a person said what it cost: who, and when.
CREATE TABLE circuit.llm_corrections (
    call     uuid NOT NULL,
    tenant   text NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    by       text NOT NULL,
    was      text NOT NULL,
    was_cost bigint,
    was_by   text,
    was_at   timestamptz
);
CREATE INDEX llm_corrections_call ON circuit.llm_corrections (call, at);

-- What each scope has spent and reserved in its day or month. Every scope is counted, also one without a ceiling: it may
-- get one within the day.
CREATE TABLE circuit.budgets (
    scope    text NOT NULL CHECK (scope IN ('trigger', 'tenant day', 'tenant month', 'day')),
    tenant   text NOT NULL,
    handler  text NOT NULL,
    period   date NOT NULL,
    spent    bigint NOT NULL DEFAULT 0 CHECK (spent >= 0),
    reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    PRIMARY KEY (scope, tenant, handler, period)
) WITH (fillfactor = 50);

-- The scopes of a call.
CREATE FUNCTION circuit.budget_scopes(my_tenant text, my_handler text, today date)
RETURNS TABLE (scope text, tenant text, handler text, period date, resets_on date)
LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
    VALUES ('trigger', '', my_handler, today, today + 1),
           ('tenant day', my_tenant, '', today, today + 1),
           ('tenant month', my_tenant, '', date_trunc('month', today::timestamp)::date,
            (date_trunc('month', today::timestamp) + interval '1 month')::date),
           ('day', '', '', today, today + 1);
END;

-- Reserve `my_worst` in all scopes of the call, or in none of them: then the full ones are returned, in the order in
-- which a person is told of them. A ceiling that is null does not bound.
-- Everybody locks these rows in the order of their key, so nobody waits for somebody who waits for him.
CREATE FUNCTION circuit.reserve_money(
    my_id uuid, my_execution uuid, my_tenant text, my_handler text, my_record text, my_provider text, my_model text,
    my_requested text, my_tokens bigint, my_worst bigint,
    handler_day bigint, tenant_day bigint, tenant_month bigint, all_day bigint
) RETURNS TABLE (scope text, ceiling bigint, spent bigint, reserved bigint, resets_at timestamptz, resets_in float8)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    today date := circuit.budget_day();
BEGIN
    INSERT INTO circuit.budgets AS b (scope, tenant, handler, period)
    SELECT s.scope, s.tenant, s.handler, s.period FROM circuit.budget_scopes(my_tenant, my_handler, today) AS s
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (scope, tenant, handler, period) DO UPDATE SET spent = b.spent WHERE false;  -- locks what is there

    RETURN QUERY
    SELECT s.scope, c.ceiling, b.spent, b.reserved, s.resets_on::timestamp AT TIME ZONE 'UTC',
           extract(epoch FROM s.resets_on::timestamp AT TIME ZONE 'UTC' - clock_timestamp())::float8
    FROM circuit.budget_scopes(my_tenant, my_handler, today) AS s
    JOIN circuit.budgets AS b USING (scope, tenant, handler, period)
    JOIN (VALUES (1, 'trigger', handler_day), (2, 'tenant day', tenant_day), (3, 'tenant month', tenant_month),
                 (4, 'day', all_day)) AS c (rank, scope, ceiling) USING (scope)
    WHERE b.spent + b.reserved + my_worst > c.ceiling
    ORDER BY c.rank;
    IF FOUND THEN
        RETURN;
    END IF;

    INSERT INTO circuit.llm_calls
        (id, execution, tenant, handler, record, provider, model, requested, tokens_worst, worst, day)
    VALUES (my_id, my_execution, my_tenant, my_handler, my_record, my_provider, my_model, my_requested, my_tokens,
            my_worst, today);
    UPDATE circuit.budgets AS b SET reserved = b.reserved + my_worst
    FROM circuit.budget_scopes(my_tenant, my_handler, today) AS s
    WHERE (b.scope, b.tenant, b.handler, b.period) = (s.scope, s.tenant, s.handler, s.period);
END $$;

-- Put the cost of a call in the place of its reservation: once. Without a cost its worst case becomes the cost.
-- Only a person (`by`) may settle a second time; what it was before is kept. Returns settled, before (it had been), or
-- missing.
CREATE FUNCTION circuit.settle_money(
    my_id uuid, my_cost bigint, my_status text, my_in integer, my_out integer, my_cached integer, my_answered text,
    my_reason text, by text
) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    call circuit.llm_calls;
    final bigint;
BEGIN
    SELECT * INTO call FROM circuit.llm_calls WHERE id = my_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    IF call.status <> 'reserved' AND by IS NULL THEN
        RETURN 'before';
    END IF;
    IF by IS NOT NULL THEN
        INSERT INTO circuit.llm_corrections (call, tenant, by, was, was_cost, was_by, was_at)
        VALUES (my_id, call.tenant, by, call.status, call.cost, call.settled_by, call.settled_at);
    END IF;
    final := coalesce(my_cost, call.worst);
    PERFORM 1 FROM circuit.budgets AS b
    JOIN circuit.budget_scopes(call.tenant, call.handler, call.day) AS s USING (scope, tenant, handler, period)
    ORDER BY b.scope, b.tenant, b.handler, b.period FOR UPDATE OF b;
    UPDATE circuit.budgets AS b
    SET reserved = b.reserved - CASE WHEN call.status = 'reserved' THEN call.worst ELSE 0 END,
        spent = b.spent + final - coalesce(call.cost, 0)
    FROM circuit.budget_scopes(call.tenant, call.handler, call.day) AS s
    WHERE (b.scope, b.tenant, b.handler, b.period) = (s.scope, s.tenant, s.handler, s.period);
    UPDATE circuit.llm_calls
    SET status = my_status, cost = final, tokens_in = coalesce(my_in, tokens_in),
        tokens_out = coalesce(my_out, tokens_out), tokens_cached = coalesce(my_cached, tokens_cached),
        answered = coalesce(my_answered, answered), reason = nullif(concat_ws('; ', reason, my_reason), ''),
        settled_at = clock_timestamp(), settled_by = by
    WHERE id = my_id;
    RETURN 'settled';
END $$;

-- The call was never made, and nobody knows whether its reservation was committed: give it back, or take its id, so
-- that a reservation which is still on its way fails.
CREATE FUNCTION circuit.void_money(
    my_id uuid, my_execution uuid, my_tenant text, my_handler text, my_provider text, my_model text, my_requested text,
    my_reason text
) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    said text;
BEGIN
    LOOP
        said := circuit.settle_money(my_id, 0, 'settled', 0, 0, 0, NULL, my_reason, NULL);
        EXIT WHEN said <> 'missing';
        INSERT INTO circuit.llm_calls
            (id, execution, tenant, handler, provider, model, requested, tokens_worst, worst, cost, status, reason, day,
             settled_at)
        VALUES (my_id, my_execution, my_tenant, my_handler, my_provider, my_model, my_requested, 0, 0, 0, 'settled',
                my_reason, circuit.budget_day(), clock_timestamp())
        ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
    END LOOP;
    RETURN said;
END $$;

SELECT circuit.of_tenant('circuit.llm_calls');
SELECT circuit.of_tenant('circuit.llm_corrections');
SELECT circuit.of_tenant('circuit.budgets');

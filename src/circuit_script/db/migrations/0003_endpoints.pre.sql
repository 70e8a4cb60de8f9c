-- Endpoints: API keys, answers kept for an Idempotency-Key, and the commit that comes before an answer.

-- Only the SHA-256 of a key is stored; 256 random bits need no salt.
CREATE TABLE circuit.api_keys (
    id           uuid PRIMARY KEY,
    tenant       text NOT NULL,
    name         text NOT NULL,
    prefix       text NOT NULL,
    hash         bytea NOT NULL UNIQUE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at   timestamptz
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX api_keys_name ON circuit.api_keys (tenant, name) WHERE revoked_at IS NULL;

-- The tenant of a key, null when there is none. Its use is noted once a minute at most.
CREATE FUNCTION circuit.tenant_of_key(wanted bytea) RETURNS text
LANGUAGE sql VOLATILE AS $$
    UPDATE circuit.api_keys SET last_used_at = now()
    WHERE hash = wanted AND revoked_at IS NULL
    AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute');
    SELECT tenant FROM circuit.api_keys WHERE hash = wanted AND revoked_at IS NULL;
$$;

-- Who holds a key may run until `until`; with a status it is an answer. `caller` is a hash of the credentials that the
-- request carried for the app: one user's key is not another's.
CREATE TABLE circuit.idempotency (
    tenant    text NOT NULL,
    endpoint  text NOT NULL,
    key       text NOT NULL,
    caller    bytea NOT NULL,
    request   bytea NOT NULL,
    execution uuid NOT NULL,
    until     timestamptz NOT NULL,
    status    smallint,
    headers   jsonb,
    body      bytea,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, endpoint, key, caller),
    UNIQUE (tenant, endpoint, key, request)  -- with other credentials it may be the same user: it must not run twice
);
CREATE INDEX idempotency_at ON circuit.idempotency (at);

-- Take a key for one execution. `verdict` is taken, other (the key belongs to another request, or this request came
-- before with other credentials), running or stored.
CREATE FUNCTION circuit.claim(
    my_tenant text, my_endpoint text, my_key text, my_caller bytea, my_request bytea, my_execution uuid, seconds float8
) RETURNS TABLE (verdict text, wait float8, status smallint, headers jsonb, body bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found_ record;
BEGIN
    -- An answer is kept for a day; whoever did not answer in his time has crashed.
    DELETE FROM circuit.idempotency i
    WHERE i.tenant = my_tenant AND i.endpoint = my_endpoint AND i.key = my_key
    AND (i.at < now() - interval '1 day' OR (i.status IS NULL AND i.until < now()));
    INSERT INTO circuit.idempotency (tenant, endpoint, key, caller, request, execution, until)
    VALUES (my_tenant, my_endpoint, my_key, my_caller, my_request, my_execution, now() + make_interval(secs => seconds))
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN QUERY SELECT 'taken', 0::float8, NULL::smallint, NULL::jsonb, NULL::bytea;
        RETURN;
    END IF;
    SELECT i.* INTO found_ FROM circuit.idempotency i
    WHERE i.tenant = my_tenant AND i.endpoint = my_endpoint AND i.key = my_key
    AND (i.caller = my_caller OR i.request = my_request)
    ORDER BY i.caller = my_caller DESC LIMIT 1;
    IF NOT FOUND THEN  -- released in this moment
        RETURN QUERY SELECT 'running', 0::float8, NULL::smallint, NULL::jsonb, NULL::bytea;
    ELSIF found_.request <> my_request OR found_.caller <> my_caller THEN
        RETURN QUERY SELECT 'other', 0::float8, NULL::smallint, NULL::jsonb, NULL::bytea;
    ELSIF found_.status IS NULL THEN
        RETURN QUERY SELECT 'running', extract(epoch FROM found_.until - now())::float8, NULL::smallint, NULL::jsonb,
                            NULL::bytea;
    ELSE
        RETURN QUERY SELECT 'stored', 0::float8, found_.status, found_.headers, found_.body;
    END IF;
END $$;

-- The ledger's rows of calls and the answers to keep, in one statement with their settlement:
-- SELECT circuit.settle(…) WHERE circuit.answer(…).
-- Raises CS003 when a call has been committed before (its answer was lost), and CS002 when its Idempotency-Key has
-- been taken by another execution meanwhile.
CREATE FUNCTION circuit.answer(
    -- calls: one per execution that answers
    c_id uuid[], c_execution uuid[], c_tenant text[], c_handler smallint[], c_account text[], c_vendor_id text[],
    c_headers jsonb[], c_body bytea[], c_status text[], c_reason text[],
    -- keys: the answers they get; with status 0 they are released
    k_tenant text[], k_endpoint text[], k_key text[], k_execution uuid[], k_status smallint[], k_headers jsonb[],
    k_body bytea[]
) RETURNS boolean
LANGUAGE plpgsql
-- As in take_in: cached plans date from empty tables.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    n bigint;
    stored bigint := cardinality(k_key) - cardinality(array_positions(k_status, 0::smallint));
BEGIN
    INSERT INTO circuit.deliveries (id, source, account, tenant, vendor_id, headers, body)
    SELECT c.id, 'endpoint', c.account, c.tenant, c.vendor_id, c.headers, c.body
    FROM unnest(c_id, c_account, c_tenant, c_vendor_id, c_headers, c_body)
         AS c (id, account, tenant, vendor_id, headers, body)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n <> cardinality(c_id) THEN
        RAISE EXCEPTION 'committed before' USING ERRCODE = 'CS003';
    END IF;
    INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status, reason)
    SELECT c.id, 0, c.handler, c.execution, c.tenant, c.status, c.reason
    FROM unnest(c_id, c_handler, c_execution, c_tenant, c_status, c_reason)
         AS c (id, handler, execution, tenant, status, reason);

    IF cardinality(k_key) > 0 THEN
        UPDATE circuit.idempotency i SET status = k.status, headers = k.headers, body = k.body, at = now()
        FROM unnest(k_tenant, k_endpoint, k_key, k_execution, k_status, k_headers, k_body)
             AS k (tenant, endpoint, key, execution, status, headers, body)
        WHERE i.tenant = k.tenant AND i.endpoint = k.endpoint AND i.key = k.key AND i.execution = k.execution
        AND i.status IS NULL AND k.status <> 0;
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n <> stored THEN
            RAISE EXCEPTION 'the key was taken by another' USING ERRCODE = 'CS002';
        END IF;
        DELETE FROM circuit.idempotency i
        USING unnest(k_tenant, k_endpoint, k_key, k_execution, k_status) AS k (tenant, endpoint, key, execution, status)
        WHERE i.tenant = k.tenant AND i.endpoint = k.endpoint AND i.key = k.key AND i.execution = k.execution
        AND i.status IS NULL AND k.status = 0;
    END IF;

    RETURN true;
END $$;

-- A tenant sees its rows, but no hash of a credential.
SELECT circuit.of_tenant('circuit.api_keys', '(id, tenant, name, prefix, created_at, last_used_at, revoked_at)');
SELECT circuit.of_tenant('circuit.idempotency', '(tenant, endpoint, key, execution, until, status, headers, body, at)');

-- Mirrors: a service that still answers the deliveries of one source, while ours is compared with it.

-- Who acts on a source's deliveries. A source without a row is the old service's for as long as circuit.toml names one.
CREATE TABLE circuit.mirrors (
    source      text PRIMARY KEY,
    acts        text NOT NULL CHECK (acts IN ('old', 'new')),
    since       timestamptz NOT NULL DEFAULT clock_timestamp(),
    by_whom     text NOT NULL,
    reason      text NOT NULL DEFAULT '',
    old_of      bigint NOT NULL DEFAULT 0,
    old_errors  bigint NOT NULL DEFAULT 0,
    watch_until timestamptz,
    looked_at   timestamptz,
    watched     text
) WITH (fillfactor = 50);
COMMENT ON COLUMN circuit.mirrors.old_of IS 'deliveries that the old service had in the days before ours took over';
COMMENT ON COLUMN circuit.mirrors.old_errors IS 'those of them that it failed, or did not answer';
COMMENT ON COLUMN circuit.mirrors.watch_until IS 'until when our errors are watched; null: they are not';
COMMENT ON COLUMN circuit.mirrors.watched IS 'what came of the watch; null: it goes on, or there is none';

CREATE TABLE circuit.mirror_moves (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    source  text NOT NULL,
    acts    text NOT NULL CHECK (acts IN ('old', 'new')),
    by_whom text NOT NULL,
    reason  text NOT NULL DEFAULT ''
);

-- What the old service said to one delivery, and how ours compares. It holds customers' data, as the ledger does.
CREATE TABLE circuit.mirrored (
    delivery     uuid PRIMARY KEY,
    source       text NOT NULL,
    tenant       text,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    order_hashes bigint[] NOT NULL,
    old_status   smallint NOT NULL,
    old_type     text NOT NULL DEFAULT '',
    old_body     bytea NOT NULL,
    old_ms       real NOT NULL,
    state        text NOT NULL DEFAULT 'pending'
                 CHECK (state IN ('pending', 'taken', 'same', 'different', 'incomparable', 'silent')),
    why          text NOT NULL DEFAULT '',
    worker       uuid,
    taken_at     timestamptz,
    release      bigint,
    judged_at    timestamptz,
    ours_ms      real,
    differences  jsonb NOT NULL DEFAULT '[]'
) WITH (fillfactor = 80);
COMMENT ON COLUMN circuit.mirrored.old_status IS '0: it did not answer';
COMMENT ON COLUMN circuit.mirrored.old_body IS 'its first 64 KB, without what compressed them';
COMMENT ON COLUMN circuit.mirrored.why IS 'of those that cannot be compared';
COMMENT ON COLUMN circuit.mirrored.release IS 'the release of ours that it was compared with';
CREATE INDEX mirrored_open ON circuit.mirrored (delivery) WHERE state IN ('pending', 'taken');
CREATE INDEX mirrored_at ON circuit.mirrored (source, at);

-- Into the ledger, but not onto the queue: another service acts on these. What it did not take (2xx) is not seen: it
-- will be sent again, and whoever answers then is to act on it. Rows of what came before are 'duplicate'.
CREATE FUNCTION circuit.take_in_mirrored(
    ids uuid[], sources text[], accounts text[], tenants text[], vendor_ids text[], record_keys text[],
    hashes bytea[], headers jsonb[], bodies bytea[],
    event_delivery integer[], ordinals smallint[], objects text[], events text[], records text[],
    order_keys text[], order_hashes bigint[], lanes smallint[], depths smallint[],
    old_statuses smallint[], old_types text[], old_bodies bytea[], old_us integer[]
) RETURNS TABLE (kind text, delivery uuid, first uuid)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    doubles uuid[];
    firsts uuid[];
BEGIN
    -- Without a tenant nothing is queued.
    SELECT coalesce(array_agg(t.delivery), '{}'), coalesce(array_agg(t.first), '{}') INTO doubles, firsts
    FROM circuit.take_in(
        ids, sources, accounts, array_fill(NULL::text, ARRAY[cardinality(ids)]),
        ARRAY(SELECT CASE WHEN old_statuses[i] BETWEEN 200 AND 299 THEN vendor_ids[i] END
              FROM generate_subscripts(ids, 1) AS i ORDER BY i),
        ARRAY(SELECT CASE WHEN old_statuses[i] BETWEEN 200 AND 299 THEN record_keys[i] END
              FROM generate_subscripts(ids, 1) AS i ORDER BY i),
        hashes, headers, bodies, event_delivery, ordinals, objects, events, records, order_keys, order_hashes, lanes,
        depths) AS t
    WHERE t.kind = 'duplicate';

    UPDATE circuit.deliveries d SET tenant = u.tenant, vendor_id = u.vendor_id
    FROM unnest(ids, tenants, vendor_ids) AS u (id, tenant, vendor_id)
    WHERE d.id = u.id AND (u.tenant IS NOT NULL OR u.vendor_id IS NOT NULL);
    UPDATE circuit.events e SET tenant = u.tenant, handled = -1
    FROM unnest(ids, tenants) AS u (id, tenant) WHERE e.delivery = u.id;

    INSERT INTO circuit.mirrored (delivery, source, tenant, order_hashes, old_status, old_type, old_body, old_ms, state,
                                  why)
    SELECT ids[i], sources[i], tenants[i],
           ARRAY(SELECT order_hashes[p] FROM generate_subscripts(event_delivery, 1) AS p WHERE event_delivery[p] = i),
           old_statuses[i], old_types[i], old_bodies[i], old_us[i] / 1000.0,
           CASE WHEN old_statuses[i] NOT BETWEEN 200 AND 299 THEN 'silent'
                WHEN tenants[i] IS NULL THEN 'incomparable' ELSE 'pending' END,
           CASE WHEN old_statuses[i] = 0 THEN 'the old service did not answer'
                WHEN old_statuses[i] NOT BETWEEN 200 AND 299 THEN 'the old service answered ' || old_statuses[i]
                WHEN tenants[i] IS NULL THEN 'its account is no tenant''s' ELSE '' END
    FROM generate_subscripts(ids, 1) AS i
    WHERE ids[i] <> ALL(doubles);

    RETURN QUERY SELECT 'duplicate', doubles[n], firsts[n] FROM generate_subscripts(doubles, 1) AS n;
END $$;
COMMENT ON COLUMN circuit.events.handled IS
    'number of handlers it was queued for; 0 is unrouted, -1: another service acted on it';

SELECT circuit.of_road('circuit.mirrors');
SELECT circuit.of_road('circuit.mirror_moves');
SELECT circuit.of_road('circuit.mirrored');
GRANT USAGE ON ALL SEQUENCES IN SCHEMA circuit TO circuit_road;

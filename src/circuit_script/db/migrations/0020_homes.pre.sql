-- Homes: objects whose records live in a CRM outside. Each write of one is an effect; circuit.records stays the mirror of
-- what was last seen and written, by which echoes are known.

-- Of such a write: whether the mirror had the record (`there`), and what it had of the fields that are written (`data`),
-- which comes back when the vendor refuses it. `gone` is the event by which it knew that the record was deleted. Every
-- other effect has NULL here.
ALTER TABLE circuit.effects ADD COLUMN was jsonb;

-- A record that was known by a reference (the id of the effect that made it) has its vendor's id now: so has the mirror,
-- and what hangs on it as on a contact. `mine`: what stands under the reference is newer than what stands under the id.
CREATE FUNCTION circuit.rename_record(
    my_tenant text, my_object text, reference text, made text, mine boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    old circuit.records;
    quoted text := to_jsonb(made)::text;
BEGIN
    DELETE FROM circuit.records r WHERE r.tenant = my_tenant AND r.object = my_object AND r.id = reference
    RETURNING * INTO old;
    IF FOUND THEN
        INSERT INTO circuit.records AS r (tenant, object, id, data, before, written, seq, deleted, depth, created_at)
        VALUES (old.tenant, old.object, made, old.data, old.before, old.written, old.seq, old.deleted, old.depth,
                old.created_at)
        ON CONFLICT (tenant, object, id) DO UPDATE SET
            data = CASE WHEN mine THEN r.data || excluded.data ELSE excluded.data || r.data END,
            written = CASE WHEN mine THEN r.written || excluded.written ELSE excluded.written || r.written END,
            deleted = CASE WHEN mine THEN excluded.deleted ELSE r.deleted OR excluded.deleted END,
            depth = greatest(r.depth, excluded.depth),
            updated_at = now();
    END IF;
    IF octet_length(reference) >= 16 THEN
        UPDATE circuit.records r
        SET data = replace(r.data::text, reference, substr(quoted, 2, length(quoted) - 2))::jsonb,
            written = replace(r.written::text, reference, substr(quoted, 2, length(quoted) - 2))::jsonb
        WHERE r.tenant = my_tenant AND r.contact = reference;
    END IF;
END $$;

-- The outcome's writes of records that live outside (h_…, in their order), as effects: but for those that would change
-- nothing of what was last seen. `h_seen` is what an event brought with this outcome (`h_seq` its id), `h_read` what the
-- handler read of its vendor, `h_laid` what the outcome wrote of the same record before. `r_…` are all records that the
-- outcome changes, `n_need` the effects that may make ids which are used: locked first, as the courier locks them.
CREATE FUNCTION circuit.home(
    h_effect uuid[], h_tenant text[], h_execution uuid[], h_release bigint[], h_lane smallint[], h_order bigint[],
    h_connector text[], h_operation text[], h_object text[], h_record text[], h_payload jsonb[], h_depth smallint[],
    h_version text[], h_seen jsonb[], h_seq bigint[], h_read jsonb[], h_laid jsonb[],
    r_tenant text[], r_object text[], r_id text[], n_need uuid[]
) RETURNS boolean
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    w record;
    r circuit.records;
    fields jsonb;
    known jsonb;
    there boolean;
    renamed boolean;
BEGIN
    PERFORM 1 FROM circuit.effects e WHERE e.id = ANY(n_need) ORDER BY e.id FOR SHARE;
    PERFORM 1 FROM circuit.records c JOIN unnest(r_tenant, r_object, r_id) AS k (tenant, object, id)
    ON c.tenant = k.tenant AND c.object = k.object AND c.id = k.id
    ORDER BY c.tenant, c.object, c.id FOR UPDATE OF c;
    -- Who writes a record first, and has no row of it to wait for, waits here: `seq` is to rise as commits do.
    PERFORM pg_advisory_xact_lock(17225, s.bucket) FROM (
        SELECT DISTINCT (h.nth_order & 255)::int AS bucket
        FROM unnest(h_tenant, h_object, h_record, h_order, h_effect) AS h (tenant, object, id, nth_order, effect)
        WHERE h.id <> h.effect::text AND NOT EXISTS (
            SELECT FROM circuit.records c WHERE c.tenant = h.tenant AND c.object = h.object AND c.id = h.id)
        ORDER BY 1) s;
    -- There may be rows by now; and who comes after us finds those, and does not wait there.
    PERFORM 1 FROM circuit.records c JOIN unnest(r_tenant, r_object, r_id) AS k (tenant, object, id)
    ON c.tenant = k.tenant AND c.object = k.object AND c.id = k.id
    ORDER BY c.tenant, c.object, c.id FOR UPDATE OF c;

    FOR w IN
        SELECT h.* FROM unnest(h_effect, h_tenant, h_execution, h_release, h_lane, h_order, h_connector, h_operation,
                               h_object, h_record, h_payload, h_depth, h_version, h_seen, h_seq, h_read, h_laid)
            WITH ORDINALITY
            AS h (effect, tenant, execution, release, lane, order_hash, connector, operation, object, record, payload,
                  depth, version, seen, seq, read, laid, nth)
        ORDER BY h.nth
    LOOP
        SELECT * INTO r FROM circuit.records c
        WHERE c.tenant = w.tenant AND c.object = w.object AND c.id = w.record;
        renamed := r.id IS NULL;
        IF renamed THEN  -- by its reference, which it had before it was made
            SELECT c.* INTO r FROM circuit.effects m
            JOIN circuit.records c ON c.tenant = m.tenant AND c.object = m.target AND c.id = m.vendor_id
            WHERE m.id = ANY(n_need) AND m.id::text = w.record AND m.tenant = w.tenant AND m.target = w.object
            AND m.was IS NOT NULL AND m.status = 'delivered';
            renamed := r.id IS NOT NULL;
        END IF;
        there := (r.id IS NOT NULL AND NOT r.deleted) OR w.seen IS NOT NULL OR w.read IS NOT NULL;
        known := CASE WHEN w.seq > coalesce(r.seq, -1) THEN coalesce(r.data, '{}') || coalesce(w.seen, '{}')
                      ELSE coalesce(w.seen, '{}') || coalesce(r.data, '{}') END
                 || coalesce(w.read, '{}') || coalesce(w.laid, '{}');
        fields := coalesce(w.payload -> 'fields', '{}');
        -- What an effect that is still on its way would make of a field is not what is there; nor may be what was read,
        -- or what an event brought, where the mirror has something else that may have come after it.
        CONTINUE WHEN there AND NOT renamed AND w.operation IN ('update', 'upsert') AND w.version IS NULL
            AND NOT EXISTS (
                SELECT FROM jsonb_each(fields) f
                WHERE (known -> f.key) IS DISTINCT FROM f.value
                OR r.data -> f.key <> f.value AND NOT coalesce(w.laid ? f.key, false)
                   AND (coalesce(w.read ? f.key, false) OR r.written -> f.key = r.data -> f.key))
            AND NOT EXISTS (
                SELECT FROM circuit.effects p
                WHERE p.status = 'pending' AND p.tenant = w.tenant AND p.order_hash = w.order_hash
                AND p.target = w.object AND p.record = w.record AND p.was IS NOT NULL
                AND (p.operation = 'delete' OR (p.payload -> 'fields') ?| ARRAY(SELECT jsonb_object_keys(fields))))
            AND NOT EXISTS (
                SELECT FROM circuit.effects p
                WHERE p.status = 'in_doubt' AND p.tenant = w.tenant AND p.target = w.object AND p.record = w.record
                AND p.was IS NOT NULL);
        INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target,
                                     record, payload, depth, if_version, was)
        VALUES (w.effect, w.tenant, w.execution, w.release, w.lane, w.order_hash, w.connector, w.operation, w.object,
                w.record, w.payload, w.depth, w.version,
                jsonb_build_object('there', there AND w.operation <> 'insert',
                                   'gone', CASE WHEN r.deleted AND NOT there THEN r.seq END, 'data', (
                    SELECT coalesce(jsonb_object_agg(k.key, k.value), '{}') FROM jsonb_each(known) k
                    WHERE fields ? k.key)));
    END LOOP;
    RETURN true;
END $$;

-- Effects (`u_effect`) whose target, record or payload holds something that may be a reference (`u_need`) to a record that
-- another one makes: those that are, wait for its id, or get it at once.
CREATE FUNCTION circuit.refer_home(u_effect uuid[], u_need uuid[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    made record;
BEGIN
    PERFORM 1 FROM circuit.effects e WHERE e.id = ANY(u_need) ORDER BY e.id FOR SHARE;
    UPDATE circuit.effects e
    SET needs = ARRAY(SELECT DISTINCT x.need FROM unnest(coalesce(e.needs, '{}') || n.needs) AS x (need))
    FROM (SELECT u.effect, array_agg(u.need) AS needs FROM unnest(u_effect, u_need) AS u (effect, need)
          JOIN circuit.effects e ON e.id = u.effect
          JOIN circuit.effects m ON m.id = u.need AND m.tenant = e.tenant AND m.was IS NOT NULL
               AND m.operation IN ('insert', 'upsert') AND m.id <> e.id
          GROUP BY u.effect) AS n
    WHERE e.id = n.effect;
    PERFORM circuit.resolve(ARRAY(SELECT DISTINCT m.id FROM circuit.effects m
                                  WHERE m.id = ANY(u_need) AND m.was IS NOT NULL AND m.status <> 'pending'));
    FOR made IN SELECT m.tenant, m.target, m.id::text AS reference, m.vendor_id FROM circuit.effects m
                WHERE m.id = ANY(u_need) AND m.was IS NOT NULL AND m.status = 'delivered'
                AND m.vendor_id <> m.id::text ORDER BY 1, 2, 4 LOOP
        PERFORM circuit.rename_record(made.tenant, made.target, made.reference, made.vendor_id, true);
    END LOOP;
    RETURN true;
END $$;

-- What uses a reference gets the real id also as its record, and stands in that record's order.
CREATE OR REPLACE FUNCTION circuit.resolve(made uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    item record;
    lost uuid[];
BEGIN
    FOR item IN SELECT e.id::text AS reference, e.id, e.vendor_id, to_jsonb(e.vendor_id)::text AS quoted, e.order_hash
                FROM circuit.effects e
                WHERE e.id = ANY(made) AND e.status = 'delivered' AND e.vendor_id IS NOT NULL LOOP
        UPDATE circuit.effects e
        SET payload = replace(e.payload::text, item.reference,
                              substr(item.quoted, 2, length(item.quoted) - 2))::jsonb,
            target = replace(e.target, item.reference, item.vendor_id),
            record = CASE WHEN e.record = item.reference THEN item.vendor_id ELSE e.record END,
            order_hash = CASE WHEN e.record = item.reference THEN item.order_hash ELSE e.order_hash END,
            needs = nullif(array_remove(e.needs, item.id), '{}')
        WHERE e.status = 'pending' AND e.needs && ARRAY[item.id];
    END LOOP;

    lost := ARRAY(SELECT m.id FROM unnest(made) AS m (id) LEFT JOIN circuit.effects e ON e.id = m.id
                  WHERE e.id IS NULL OR e.status IN ('dead', 'discarded')
                     OR (e.status = 'delivered' AND e.vendor_id IS NULL));
    WHILE cardinality(lost) > 0 LOOP
        WITH dead AS (
            UPDATE circuit.effects e
            SET status = 'dead', settled_at = now(),
                reason = format('reference: it uses the id that effect %s was to make, and that one made none',
                                (SELECT n FROM unnest(e.needs) AS n WHERE n = ANY(lost) LIMIT 1))
            WHERE e.status = 'pending' AND e.needs && lost
            RETURNING e.id, e.tenant, e.execution, e.record, e.attempts, e.reason
        ), letters AS (
            INSERT INTO circuit.dead_letters (kind, tenant, effect, execution, record, attempts, reason)
            SELECT 'effect', d.tenant, d.id, d.execution, d.record, d.attempts, d.reason FROM dead d
        )
        SELECT coalesce(array_agg(d.id), '{}') INTO lost FROM dead d;
    END LOOP;
END $$;

-- The mirror follows what becomes of a write. One that is dead or discarded was not made, as far as anybody knows: fields
-- that are still as it wrote them are as they were before, so that what its vendor says next is taken for what it is. One
-- that is sent again after that counts again. And a record that its vendor has made is known by its vendor's id.
CREATE FUNCTION circuit.mirror() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    fields jsonb := coalesce(NEW.payload -> 'fields', '{}');
    had jsonb := coalesce(NEW.was -> 'data', '{}');
    there boolean := coalesce((NEW.was ->> 'there')::boolean, false);
    undone text[];
BEGIN
    IF NEW.status IN ('dead', 'discarded') AND OLD.status NOT IN ('dead', 'discarded') THEN
        IF NEW.operation = 'delete' THEN
            UPDATE circuit.records r SET deleted = false, updated_at = now()
            WHERE there AND r.tenant = NEW.tenant AND r.object = NEW.target AND r.id = NEW.record AND r.deleted;
            RETURN NULL;
        END IF;
        PERFORM 1 FROM circuit.records r
        WHERE r.tenant = NEW.tenant AND r.object = NEW.target AND r.id = NEW.record FOR UPDATE;
        SELECT array_agg(f.key) INTO undone FROM circuit.records r CROSS JOIN LATERAL jsonb_each(fields) f
        WHERE r.tenant = NEW.tenant AND r.object = NEW.target AND r.id = NEW.record AND r.data -> f.key = f.value;
        UPDATE circuit.records r
        SET data = (r.data - undone) || coalesce(
                (SELECT jsonb_object_agg(k.key, k.value) FROM jsonb_each(had) k WHERE k.key = ANY(undone)), '{}'),
            written = r.written - undone, updated_at = now()
        WHERE undone IS NOT NULL AND r.tenant = NEW.tenant AND r.object = NEW.target AND r.id = NEW.record;
        DELETE FROM circuit.records r
        WHERE NOT there AND r.tenant = NEW.tenant AND r.object = NEW.target AND r.id = NEW.record AND r.seq = 0
        AND r.data = '{}';
        UPDATE circuit.records r SET deleted = true
        WHERE r.seq = (NEW.was ->> 'gone')::bigint AND r.tenant = NEW.tenant AND r.object = NEW.target
        AND r.id = NEW.record AND NOT r.deleted
        AND NOT EXISTS (
            SELECT FROM circuit.effects e
            WHERE e.status = 'pending' AND e.tenant = NEW.tenant AND e.order_hash = NEW.order_hash AND e.seq > NEW.seq
            AND e.target = NEW.target AND e.record = NEW.record AND e.operation IN ('insert', 'upsert'));
        -- What comes after it would bring back what this one wrote.
        UPDATE circuit.effects e
        SET was = jsonb_set(e.was, '{data}', (e.was -> 'data')
                - ARRAY(SELECT f.key FROM jsonb_each(fields) f WHERE e.was -> 'data' -> f.key = f.value)
                || coalesce((SELECT jsonb_object_agg(k.key, k.value) FROM jsonb_each(had) k
                             WHERE e.was -> 'data' -> k.key = fields -> k.key), '{}'))
                || CASE WHEN there OR NEW.operation NOT IN ('insert', 'upsert') THEN '{}'
                        ELSE jsonb_build_object('there', false, 'gone', NEW.was -> 'gone') END
        WHERE e.status = 'pending' AND e.tenant = NEW.tenant AND e.order_hash = NEW.order_hash AND e.seq > NEW.seq
        AND e.target = NEW.target AND e.record = NEW.record AND e.was IS NOT NULL;
    ELSIF OLD.status IN ('dead', 'discarded') AND NEW.status IN ('pending', 'delivered') THEN
        UPDATE circuit.effects e
        SET was = jsonb_build_object('there', coalesce((
                SELECT NOT r.deleted FROM circuit.records r
                WHERE r.tenant = NEW.tenant AND r.object = NEW.target AND r.id = NEW.record), false), 'gone', (
                SELECT r.seq FROM circuit.records r
                WHERE r.tenant = NEW.tenant AND r.object = NEW.target AND r.id = NEW.record AND r.deleted),
                'data', coalesce((
                SELECT jsonb_object_agg(k.key, k.value) FROM circuit.records r CROSS JOIN LATERAL jsonb_each(r.data) k
                WHERE r.tenant = NEW.tenant AND r.object = NEW.target AND r.id = NEW.record AND fields ? k.key), '{}'))
        WHERE e.id = NEW.id;
        INSERT INTO circuit.records AS r (tenant, object, id, data, written, deleted, depth)
        VALUES (NEW.tenant, NEW.target, NEW.record, fields, fields, NEW.operation = 'delete', NEW.depth)
        ON CONFLICT (tenant, object, id) DO UPDATE
        SET data = r.data || excluded.data, written = r.written || excluded.written,
            deleted = CASE WHEN NEW.operation = 'update' THEN r.deleted ELSE excluded.deleted END,
            depth = excluded.depth, updated_at = now();
    END IF;
    IF NEW.status = 'delivered' AND NEW.vendor_id <> NEW.record THEN
        PERFORM circuit.rename_record(NEW.tenant, NEW.target, NEW.record, NEW.vendor_id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER mirror AFTER UPDATE OF status ON circuit.effects
    FOR EACH ROW WHEN (NEW.was IS NOT NULL AND NEW.status <> OLD.status)
    EXECUTE FUNCTION circuit.mirror();

-- These writes were delivered, by requests that began at `c_began`. What an event brought before that was older than the
-- write, so the mirror gets again what was written: else the vendor's own event about it would be no echo. But not what a
-- later write changes, that is still on its way. A record that was made has its own id from now on, and its order.
CREATE FUNCTION circuit.confirm(c_effect uuid[], c_began timestamptz[], c_order bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH done AS (
        SELECT e.tenant, e.target, coalesce(e.vendor_id, e.record) AS record, e.depth, c.began,
               coalesce(e.payload -> 'fields', '{}') - ARRAY(
                   SELECT jsonb_object_keys(p.payload -> 'fields') FROM circuit.effects p
                   WHERE p.status = 'pending' AND p.tenant = e.tenant AND p.order_hash = e.order_hash
                   AND p.seq > e.seq AND p.target = e.target AND p.record = e.record AND p.was IS NOT NULL
                   AND p.payload ? 'fields') AS fields
        FROM unnest(c_effect, c_began) AS c (effect, began)
        JOIN circuit.effects e ON e.id = c.effect AND e.status = 'delivered' AND e.operation <> 'delete'
    )
    UPDATE circuit.records r
    SET data = r.data || d.fields, written = r.written || d.fields, depth = d.depth, updated_at = now()
    FROM done d
    WHERE r.tenant = d.tenant AND r.object = d.target AND r.id = d.record AND NOT r.deleted
    AND r.updated_at < d.began AND NOT r.data @> d.fields;
    -- Of one that was in doubt, those that use its id have it already.
    UPDATE circuit.effects e SET order_hash = c.hashed
    FROM unnest(c_effect, c_order) AS c (effect, hashed) JOIN circuit.effects m ON m.id = c.effect
    WHERE m.status = 'delivered' AND m.vendor_id <> m.record AND e.status = 'pending' AND e.tenant = m.tenant
    AND e.order_hash = m.order_hash AND e.target = m.target AND e.record = m.vendor_id;
    UPDATE circuit.effects e SET order_hash = c.hashed, record = e.vendor_id
    FROM unnest(c_effect, c_order) AS c (effect, hashed)
    WHERE e.id = c.effect AND e.status = 'delivered' AND e.vendor_id <> e.record;
END $$;

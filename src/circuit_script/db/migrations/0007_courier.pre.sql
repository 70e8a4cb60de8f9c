-- The courier: effects that use ids which others have yet to make, what vendors asked for, and who decided in a doubt.

-- `needs` are effects whose vendors make ids that this one uses; `vendor_id` is the id that its own vendor made.
-- `left_at` stands while a request that must not be repeated blindly is on its way, or its result is unknown: whoever
-- sends one puts a moment of its own there, by which a late answer is known for whose it is. `cancelled` while it stands:
-- the answer counts, and nothing leaves after it.
-- `settled_by` is who decided what became of it where a person did, and `note` why.
ALTER TABLE circuit.effects
    ADD COLUMN needs      uuid[],
    ADD COLUMN vendor_id  text,
    ADD COLUMN if_version text,
    ADD COLUMN left_at    timestamptz,
    ADD COLUMN cancelled  boolean NOT NULL DEFAULT false,
    ADD COLUMN settled_by text,
    ADD COLUMN note       text,
    DROP CONSTRAINT effects_status_check,
    ADD CONSTRAINT effects_status_check CHECK (status IN ('pending', 'delivered', 'dead', 'in_doubt', 'discarded'));

DROP INDEX circuit.effects_due;
CREATE INDEX effects_due ON circuit.effects (tenant, connector, operation, target, next_at)
    WHERE status = 'pending' AND needs IS NULL;
CREATE INDEX effects_needs ON circuit.effects USING gin (needs) WHERE status = 'pending' AND needs IS NOT NULL;

-- Why the effects of a target wait. 'asked': its vendor asked for it (429), and every worker waits. What one worker
-- knows for itself is told for who looks: 'open', its circuit is, and 'rate', its calls are used up.
CREATE TABLE circuit.courier_waits (
    tenant    text NOT NULL,
    connector text NOT NULL,
    target    text NOT NULL,
    kind      text NOT NULL CHECK (kind IN ('asked', 'open', 'rate')),
    operation text NOT NULL DEFAULT '',
    worker    uuid NOT NULL,
    until     timestamptz NOT NULL,
    reason    text NOT NULL,
    PRIMARY KEY (tenant, connector, target, kind, operation, worker)
) WITH (fillfactor = 50);

-- These effects are settled, or not there: those that use what they were to make get the real ids, or die with them.
-- A reference is the id of the effect that makes the record: a UUID, so wherever its text stands it means that record.
CREATE FUNCTION circuit.resolve(made uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    item record;
    lost uuid[];
BEGIN
    FOR item IN SELECT e.id::text AS reference, e.id, e.vendor_id, to_jsonb(e.vendor_id)::text AS quoted
                FROM circuit.effects e
                WHERE e.id = ANY(made) AND e.status = 'delivered' AND e.vendor_id IS NOT NULL LOOP
        UPDATE circuit.effects e
        SET payload = replace(e.payload::text, item.reference,
                              substr(item.quoted, 2, length(item.quoted) - 2))::jsonb,
            target = replace(e.target, item.reference, item.vendor_id),
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

-- What a person decides of an effect (in doubt, dead or cancelled) is decided for those that use its id; and one that is
-- sent again finds out what has become of those that it uses.
CREATE FUNCTION circuit.decided() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM circuit.resolve(array_append(CASE WHEN NEW.status = 'pending' THEN NEW.needs END, NEW.id));
    RETURN NULL;
END $$;
CREATE TRIGGER decided AFTER UPDATE OF status ON circuit.effects
    FOR EACH ROW WHEN (NEW.status <> OLD.status AND (OLD.status IN ('in_doubt', 'dead') OR NEW.status = 'discarded'))
    EXECUTE FUNCTION circuit.decided();

-- An effect that waited for its time has ended before it (cancelled, discarded, done after all): those that waited behind
-- it as long as it did may leave, unless an earlier one still holds them. Of many that end at once, the first one lets
-- them go.
CREATE FUNCTION circuit.let_pass() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    following timestamptz;
BEGIN
    SELECT e.next_at INTO following FROM circuit.effects e
    WHERE e.status = 'pending' AND e.tenant = OLD.tenant AND e.order_hash = OLD.order_hash AND e.seq > OLD.seq
    ORDER BY e.seq LIMIT 1;
    IF following = OLD.next_at AND NOT EXISTS (
        SELECT FROM circuit.effects e
        WHERE e.status = 'pending' AND e.tenant = OLD.tenant AND e.order_hash = OLD.order_hash AND e.seq < OLD.seq)
    THEN
        UPDATE circuit.effects e SET next_at = now()
        WHERE e.status = 'pending' AND e.tenant = OLD.tenant AND e.order_hash = OLD.order_hash AND e.seq > OLD.seq
        AND e.next_at = OLD.next_at;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER let_pass AFTER UPDATE OF status ON circuit.effects
    FOR EACH ROW WHEN (OLD.status = 'pending' AND NEW.status <> 'pending' AND OLD.next_at > now())
    EXECUTE FUNCTION circuit.let_pass();

-- What more there is to say of effects that an outcome has just made: `r_id` uses what `r_need` makes, `v_id` is for
-- the version `v_version` of its record only. Those that are needed are locked: the courier settles them before this
-- or after it, not meanwhile.
CREATE FUNCTION circuit.refer(r_id uuid[], r_need uuid[], v_id uuid[], v_version text[]) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE circuit.effects e SET if_version = v.version
    FROM unnest(v_id, v_version) AS v (id, version) WHERE e.id = v.id;
    IF cardinality(r_id) > 0 THEN
        UPDATE circuit.effects e SET needs = n.needs
        FROM (SELECT r.id, array_agg(r.need) AS needs FROM unnest(r_id, r_need) AS r (id, need) GROUP BY r.id) AS n
        WHERE e.id = n.id;
        PERFORM 1 FROM circuit.effects e WHERE e.id = ANY(r_need) ORDER BY e.id FOR SHARE;
        PERFORM circuit.resolve(r_need);
    END IF;
    RETURN true;
END $$;

-- An outcome that was made for these versions of records: a version is the transaction that wrote the record last, and 0
-- where there is none. Raises CS004, with the records in its detail, when one of them was changed since. All records of
-- the outcome are locked first, in the order in which outcomes lock them.
CREATE FUNCTION circuit.unchanged(
    c_tenant text[], c_object text[], c_id text[], c_version bigint[], r_tenant text[], r_object text[], r_id text[]
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    changed jsonb;
BEGIN
    PERFORM 1 FROM circuit.records r JOIN unnest(r_tenant, r_object, r_id) AS k (tenant, object, id)
    ON r.tenant = k.tenant AND r.object = k.object AND r.id = k.id
    ORDER BY r.tenant, r.object, r.id FOR UPDATE OF r;
    SELECT jsonb_agg(jsonb_build_array(c.object, c.id)) INTO changed
    FROM unnest(c_tenant, c_object, c_id, c_version) AS c (tenant, object, id, version)
    LEFT JOIN circuit.records r ON r.tenant = c.tenant AND r.object = c.object AND r.id = c.id
    WHERE CASE WHEN r.id IS NULL OR r.deleted THEN 0 ELSE r.xmin::text::bigint END <> c.version;
    IF changed IS NOT NULL THEN
        RAISE EXCEPTION 'changed since it was read' USING ERRCODE = 'CS004', DETAIL = changed::text;
    END IF;
    RETURN true;
END $$;

SELECT circuit.of_tenant('circuit.courier_waits');

-- Replays: past events put back on the queue, one by one or many by a filter.

ALTER TABLE circuit.queue ADD COLUMN past bigint, ADD COLUMN replay uuid;
COMMENT ON COLUMN circuit.queue.past IS 'the id that the event had when it arrived; null for what has just arrived';
COMMENT ON COLUMN circuit.queue.replay IS 'the replay that put it back; null for every other';
CREATE INDEX queue_replay ON circuit.queue (replay) WHERE replay IS NOT NULL;
CREATE INDEX queue_past ON circuit.queue (past, handler) WHERE past IS NOT NULL;

-- What was put back one by one: by whom, and under which ids its replies are journaled.
CREATE TABLE circuit.requeued (
    past    bigint NOT NULL,
    handler smallint NOT NULL,
    id      bigint NOT NULL,
    by_whom text NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (past, handler, id)
);
CREATE INDEX requeued_at ON circuit.requeued (at);

CREATE TABLE circuit.replays (
    id       uuid PRIMARY KEY,
    status   text NOT NULL CHECK (status IN ('choosing', 'running', 'paused', 'done', 'cancelled', 'failed')),
    filter   jsonb NOT NULL,
    by_whom  text NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    rate     integer NOT NULL CHECK (rate > 0),
    chosen   bigint NOT NULL DEFAULT 0,
    fed      bigint NOT NULL DEFAULT 0,
    skipped  bigint NOT NULL DEFAULT 0,
    fed_to   bigint NOT NULL DEFAULT 0,
    fed_at   timestamptz,
    release  bigint REFERENCES circuit.releases,
    reason   text
) WITH (fillfactor = 50);
COMMENT ON COLUMN circuit.replays.release IS 'the recorded release that runs its items; null for the live one';
COMMENT ON COLUMN circuit.replays.reason IS 'why it failed; null for every other';
COMMENT ON COLUMN circuit.replays.rate IS 'items a second at most, and how many of it stand in the queue at most';
COMMENT ON COLUMN circuit.replays.fed_to IS 'of items before this one none is left; moved in the transaction that feeds';

-- What a replay takes: `past` is the id with which it arrived, `event` the one that it has in the queue, once it is fed.
CREATE TABLE circuit.replay_items (
    replay   uuid NOT NULL,
    past     bigint NOT NULL,
    handler  smallint NOT NULL,
    delivery uuid NOT NULL,
    ordinal  smallint NOT NULL,
    tenant   text NOT NULL,
    event    bigint,
    skipped  text,
    PRIMARY KEY (replay, past, handler)
);

SELECT circuit.of_tenant('circuit.replay_items');
GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.requeued, circuit.replays TO circuit_road;

-- A release's files, apart from what tenants may read of releases.
CREATE TABLE circuit.release_sources (
    release bigint PRIMARY KEY REFERENCES circuit.releases,
    source  bytea NOT NULL,
    at      timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.release_sources TO circuit_road;

-- Puts past events back for a handler, in the order of the arrays; their new ids. The lock is take_in's: ids rise in
-- the order of commits. It is taken last, and a client that stands still with it is cut off, so that intake never waits
-- for one.
CREATE FUNCTION circuit.requeue(
    deliveries uuid[], ordinals smallint[], handlers smallint[], tenants text[], order_hashes bigint[],
    lanes smallint[], of_replay uuid, with_journal boolean, who text
) RETURNS TABLE (event bigint)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    depths smallint[];
    pasts bigint[];
    made bigint[];
BEGIN
    -- What nobody owned has an owner from now on, and what nobody handled is handled.
    UPDATE circuit.deliveries d SET tenant = p.tenant
    FROM (SELECT DISTINCT * FROM unnest(deliveries, tenants)) AS p (delivery, tenant)
    WHERE d.id = p.delivery AND d.tenant IS NULL;
    UPDATE circuit.events e SET tenant = p.tenant, handled = greatest(e.handled, p.n)
    FROM (SELECT delivery, ordinal, tenant, count(DISTINCT handler) AS n
          FROM unnest(deliveries, ordinals, tenants, handlers) AS u (delivery, ordinal, tenant, handler)
          GROUP BY 1, 2, 3) AS p
    WHERE e.delivery = p.delivery AND e.ordinal = p.ordinal AND (e.tenant IS NULL OR e.handled < p.n);

    -- As deep as it was: an execution says how deep it stood itself; what nobody handled, what its sender said.
    SELECT array_agg(least(greatest(coalesce(ran.depth - 1, said.depth, 0), 0), 32000)::smallint ORDER BY p.nth),
           array_agg(e.id ORDER BY p.nth)
    INTO depths, pasts
    FROM unnest(deliveries, ordinals, handlers) WITH ORDINALITY AS p (delivery, ordinal, handler, nth)
    JOIN circuit.events e ON e.delivery = p.delivery AND e.ordinal = p.ordinal
    LEFT JOIN LATERAL (
        SELECT max((x.usage ->> 'depth')::numeric::integer) AS depth
        FROM circuit.outcomes o JOIN circuit.executions x ON x.id = o.execution
        WHERE o.delivery = p.delivery AND o.ordinal = p.ordinal AND o.handler = p.handler) AS ran ON true
    LEFT JOIN LATERAL (
        SELECT substring(d.headers ->> 'circuit-depth' FROM '^[0-9]{1,5}')::integer AS depth
        FROM circuit.deliveries d WHERE d.id = p.delivery) AS said ON true;
    IF cardinality(pasts) IS DISTINCT FROM cardinality(deliveries) THEN
        RAISE EXCEPTION 'an event is no longer in the ledger' USING ERRCODE = 'CS002';
    END IF;

    PERFORM set_config('idle_in_transaction_session_timeout', '5000', true);
    PERFORM pg_advisory_xact_lock(7207418001);
    SELECT array_agg(nextval('circuit.event_ids') ORDER BY n) INTO made
    FROM generate_series(1, cardinality(deliveries)) AS n;
    SELECT array_agg(m ORDER BY m) INTO made FROM unnest(made) AS m;

    INSERT INTO circuit.queue
        (lane, id, handler, ordinal, order_hash, delivery, tenant, object, event, record, depth, past, replay)
    SELECT p.lane, p.id, p.handler, p.ordinal, p.order_hash, p.delivery, p.tenant, e.object, e.event, e.record,
           p.depth, p.past, of_replay
    FROM unnest(deliveries, ordinals, handlers, tenants, order_hashes, lanes, depths, pasts, made)
         AS p (delivery, ordinal, handler, tenant, order_hash, lane, depth, past, id)
    JOIN circuit.events e ON e.delivery = p.delivery AND e.ordinal = p.ordinal;

    IF of_replay IS NOT NULL THEN
        UPDATE circuit.replay_items i SET event = p.id
        FROM unnest(pasts, handlers, made) AS p (past, handler, id)
        WHERE i.replay = of_replay AND i.past = p.past AND i.handler = p.handler;
        -- What died of it and waited for a person waits no more.
        UPDATE circuit.dead_letters l SET status = 'retried', by = who, closed_at = now(), again = p.id
        FROM unnest(deliveries, ordinals, handlers, made) AS p (delivery, ordinal, handler, id)
        WHERE l.kind = 'event' AND l.status = 'open' AND l.delivery = p.delivery AND l.ordinal = p.ordinal
          AND l.handler = p.handler;
    ELSE
        INSERT INTO circuit.requeued (past, handler, id, by_whom)
        SELECT p.past, p.handler, p.id, who FROM unnest(pasts, handlers, made) AS p (past, handler, id);
        DELETE FROM circuit.requeued WHERE at < now() - interval '30 days';
    END IF;
    IF with_journal THEN
        -- Also of what was put back before, and failed again.
        INSERT INTO circuit.journal (event, handler, key, tenant, reply)
        SELECT p.id, j.handler, j.key, j.tenant, j.reply
        FROM unnest(pasts, handlers, made) AS p (past, handler, id)
        CROSS JOIN LATERAL (
            SELECT p.past AS id UNION
            SELECT r.id FROM circuit.requeued r WHERE r.past = p.past AND r.handler = p.handler) AS was
        JOIN circuit.journal j ON j.event = was.id AND j.handler = p.handler
        ON CONFLICT DO NOTHING;
    END IF;
    IF EXISTS (SELECT 1 FROM circuit.workers w WHERE w.asleep AND w.expires_at > now()) THEN
        PERFORM pg_notify('circuit_queue', '');
    END IF;
    RETURN QUERY SELECT m FROM unnest(made) AS m ORDER BY m;
END $$;

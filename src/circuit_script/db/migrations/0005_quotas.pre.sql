-- Quotas of tenants: what of each is taken in a day and in a month, and the leases by which workers take it in chunks.

-- A period's row is begun anew when the period has ended. `granted` is what workers have taken of it, used or not.
CREATE TABLE circuit.quota_use (
    tenant  text NOT NULL,
    quota   text NOT NULL,
    period  text NOT NULL CHECK (period IN ('day', 'month')),
    starts  date NOT NULL,
    granted bigint NOT NULL DEFAULT 0,
    noticed smallint NOT NULL DEFAULT 0,
    noticed_of bigint,
    PRIMARY KEY (tenant, quota, period)
) WITH (fillfactor = 50);
COMMENT ON COLUMN circuit.quota_use.noticed IS 'the highest share, in percent, of which the tenant has been told';
COMMENT ON COLUMN circuit.quota_use.noticed_of IS 'the ceiling of which that was: of another one nothing was told yet';

-- One chunk that one worker holds on one day. What a worker held that says nothing any more counts as used: it may have
-- been, and nobody can tell.
CREATE TABLE circuit.quota_leases (
    worker  uuid NOT NULL,
    slot    integer NOT NULL,
    tenant  text NOT NULL,
    quota   text NOT NULL,
    day     date NOT NULL,
    granted bigint NOT NULL,
    used    bigint NOT NULL,
    call    bigint NOT NULL,
    at      timestamptz NOT NULL,
    PRIMARY KEY (worker, slot)
) WITH (fillfactor = 50);
COMMENT ON COLUMN circuit.quota_leases.call IS 'the worker''s last call: an earlier one that comes later changes nothing';
CREATE INDEX quota_leases_tenant ON circuit.quota_leases (tenant, quota, at);

-- The clock by which days and months begin; those of the hosts do not matter.
CREATE FUNCTION circuit.quota_now() RETURNS timestamptz
LANGUAGE sql VOLATILE
RETURN clock_timestamp();

-- How much of each period is used: all that was granted, but for what live workers hold and have not used yet.
CREATE FUNCTION circuit.quotas_used(only_tenants text[], silent float8)
RETURNS TABLE (tenant text, quota text, period text, starts date, used bigint)
LANGUAGE sql STABLE AS $$
    SELECT u.tenant, u.quota, u.period, u.starts, u.granted - coalesce((
        SELECT sum(l.granted - l.used)::bigint FROM circuit.quota_leases l
        WHERE l.tenant = u.tenant AND l.quota = u.quota
        AND l.at > circuit.quota_now() - make_interval(secs => silent)
        AND l.day BETWEEN u.starts AND CASE u.period WHEN 'day' THEN u.starts
                                       ELSE (u.starts + interval '1 month - 1 day')::date END), 0)
    FROM circuit.quota_use u
    WHERE (only_tenants IS NULL OR u.tenant = ANY(only_tenants))
    AND u.starts = date_trunc(u.period, circuit.quota_now() AT TIME ZONE 'UTC')::date
$$;

-- One worker's leases, as it sees them, and what it needs besides; all in one statement, whatever their number. Of each
-- it says the whole and not the change, so that a call whose answer was lost is mended by the next one.
-- `needs` is what somebody waits for, `wants` what is fetched ahead of use; a lease that is closing gives back the rest.
CREATE FUNCTION circuit.lease_quotas(
    my_worker uuid, my_call bigint, silent float8,
    slots integer[], tenants text[], quotas text[], day_ceilings bigint[], month_ceilings bigint[],
    useds bigint[], helds bigint[], needs bigint[], wants bigint[], fresh boolean[], closing boolean[]
) RETURNS TABLE (slot integer, granted bigint, day date, seconds float8, day_used bigint, month_used bigint,
                 day_noticed smallint, month_noticed smallint, elsewhere bigint, scarce boolean, known boolean)
LANGUAGE plpgsql
-- As in take_in: cached plans date from empty tables.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    item record;
    held record;
    moment timestamptz;
    today date;
    of_day record;
    of_month record;
    unused record;
    free bigint;
    more bigint;
    change bigint;
BEGIN
    FOR item IN
        SELECT * FROM unnest(slots, tenants, quotas, day_ceilings, month_ceilings, useds, helds, needs, wants, fresh, closing)
        AS i (slot, tenant, quota, per_day, per_month, used, held, need, want, fresh, closing)
        ORDER BY tenant, quota, slot  -- else two workers deadlock
    LOOP
        today := (circuit.quota_now() AT TIME ZONE 'UTC')::date;
        -- A clock that was put back does not begin a day again; but of one that was far ahead nothing is believed, else
        -- nothing were left until that day.
        INSERT INTO circuit.quota_use AS u (tenant, quota, period, starts)
        VALUES (item.tenant, item.quota, 'day', today)
        ON CONFLICT (tenant, quota, period) DO UPDATE SET starts = excluded.starts, granted = 0, noticed = 0
        WHERE u.starts < excluded.starts OR u.starts > excluded.starts + 1;  -- the row is locked in any case
        SELECT u.* INTO of_day FROM circuit.quota_use u
        WHERE u.tenant = item.tenant AND u.quota = item.quota AND u.period = 'day';
        today := of_day.starts;
        INSERT INTO circuit.quota_use AS u (tenant, quota, period, starts)
        VALUES (item.tenant, item.quota, 'month', date_trunc('month', today)::date)
        ON CONFLICT (tenant, quota, period) DO UPDATE SET starts = excluded.starts, granted = 0, noticed = 0
        WHERE u.starts <> excluded.starts;
        SELECT u.* INTO of_month FROM circuit.quota_use u
        WHERE u.tenant = item.tenant AND u.quota = item.quota AND u.period = 'month';
        moment := circuit.quota_now();

        SELECT l.* INTO held FROM circuit.quota_leases l WHERE l.worker = my_worker AND l.slot = item.slot;
        IF held.call >= my_call THEN
            CONTINUE;
        END IF;
        IF held.slot IS NULL AND NOT item.fresh THEN  -- it was forgotten: what the worker holds is nobody's
            RETURN QUERY SELECT item.slot, 0::bigint, today, 0::float8, NULL::bigint, NULL::bigint, NULL::smallint,
                                NULL::smallint, 0::bigint, false, false;
            CONTINUE;
        END IF;

        change := item.used + item.held - coalesce(held.granted, 0);
        IF coalesce(held.day, today) = of_day.starts THEN
            of_day.granted := of_day.granted + change;
        END IF;
        IF date_trunc('month', coalesce(held.day, today))::date = of_month.starts THEN
            of_month.granted := of_month.granted + change;
        END IF;
        more := 0;
        IF NOT item.closing AND coalesce(held.day, today) = today THEN
            free := greatest(0, least(item.per_day - of_day.granted, item.per_month - of_month.granted));
            -- Ahead of use nobody takes more than a quarter of what is left, so that the rest goes where it is needed.
            more := greatest(least(item.need, free), least(item.want, free / 4));
        END IF;
        of_day.granted := of_day.granted + more;
        of_month.granted := of_month.granted + more;
        IF change + more <> 0 THEN
            UPDATE circuit.quota_use u
            SET granted = CASE u.period WHEN 'day' THEN of_day.granted ELSE of_month.granted END
            WHERE u.tenant = item.tenant AND u.quota = item.quota;
        END IF;
        IF item.closing THEN
            DELETE FROM circuit.quota_leases l WHERE l.worker = my_worker AND l.slot = item.slot;
        ELSE
            INSERT INTO circuit.quota_leases AS l (worker, slot, tenant, quota, day, granted, used, call, at)
            VALUES (my_worker, item.slot, item.tenant, item.quota, today, item.used + item.held + more, item.used, my_call,
                    moment)
            ON CONFLICT (worker, slot) DO UPDATE
            SET granted = excluded.granted, used = excluded.used, call = excluded.call, at = excluded.at;
        END IF;

        SELECT coalesce(sum(l.granted - l.used) FILTER (WHERE l.day = today), 0)::bigint AS in_day,
               coalesce(sum(l.granted - l.used) FILTER (WHERE date_trunc('month', l.day)::date = of_month.starts), 0)::bigint
               AS in_month,
               coalesce(sum(l.granted - l.used) FILTER (WHERE l.worker <> my_worker), 0)::bigint AS in_others,
               coalesce(bool_or(l.worker <> my_worker), false) AS others
        INTO unused FROM circuit.quota_leases l
        WHERE l.tenant = item.tenant AND l.quota = item.quota AND l.at > moment - make_interval(secs => silent);
        RETURN QUERY SELECT item.slot, more, today,
                            CASE WHEN coalesce(held.day, today) > today THEN 0  -- of a clock that was ahead: it is over
                            -- Of a clock that was put back: only until its own next day, lest the lease outlast its.
                            ELSE extract(epoch FROM (least(coalesce(held.day, today), (moment AT TIME ZONE 'UTC')::date) + 1
                                                    )::timestamp AT TIME ZONE 'UTC' - moment)
                            END::float8,
                            of_day.granted - unused.in_day, of_month.granted - unused.in_month,
                            CASE of_day.noticed_of WHEN item.per_day THEN of_day.noticed ELSE 0 END::smallint,
                            CASE of_month.noticed_of WHEN item.per_month THEN of_month.noticed ELSE 0 END::smallint,
                            unused.in_others,
                            -- Others are there, and less than a quarter is left for all.
                            unused.others AND 4 * least(item.per_day - of_day.granted, item.per_month - of_month.granted)
                                              < least(item.per_day, item.per_month),
                            true;
    END LOOP;
END $$;

SELECT circuit.of_tenant('circuit.quota_use');
SELECT circuit.of_tenant('circuit.quota_leases');

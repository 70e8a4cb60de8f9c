-- What handlers log: whose trace and user, and a search over all of it.

ALTER TABLE circuit.circuit_logs ADD COLUMN trace text, ADD COLUMN "user" text;
COMMENT ON COLUMN circuit.circuit_logs.trace IS 'of whoever started it; null: the execution''s own, which is its id';

-- What words are ---------------------------------------------------------------------------------
-- One index finds every mix of filters, so its lexemes are words and, with a first character that no word has, what is
-- said of a line: `:level:error`, `:handler:score`, `:tenant:acme`, and fields as `=lead=4711`.

-- Lower case, and a space for whatever is no letter or digit. By code points, since what a letter is depends on the
-- server's locale: of other scripts than ours only blanks and punctuation divide.
CREATE FUNCTION circuit.log_plain(said text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN regexp_replace(lower(said), '[\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u2000-\u206f\u3000-\u3003]+', ' ', 'g');

-- Fields at any depth: `a.b`, and elements of lists by the name of the list.
CREATE FUNCTION circuit.log_fields(context jsonb) RETURNS TABLE (key text, value text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    WITH RECURSIVE each (key, value, depth) AS (
        SELECT e.key, e.value, 1 FROM jsonb_each(CASE jsonb_typeof(context) WHEN 'object' THEN context END) AS e
        UNION ALL
        SELECT n.key, n.value, p.depth + 1
        FROM each p CROSS JOIN LATERAL (
            SELECT p.key || '.' || o.key, o.value
            FROM jsonb_each(CASE jsonb_typeof(p.value) WHEN 'object' THEN p.value END) AS o
            UNION ALL
            SELECT p.key, a.value
            FROM jsonb_array_elements(CASE jsonb_typeof(p.value) WHEN 'array' THEN p.value END) AS a (value)
        ) AS n (key, value)
        WHERE p.depth < 8 AND jsonb_typeof(p.value) IN ('object', 'array')
    )
    SELECT key, value #>> '{}' FROM each WHERE jsonb_typeof(value) NOT IN ('object', 'array', 'null') LIMIT 1000
$$;

CREATE FUNCTION circuit.log_field(key text, value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '=' || lower(left(key, 60)) || '=' || lower(left(value, 100));

-- All words of a line, in order, with the names of fields: what a phrase is looked for in.
CREATE FUNCTION circuit.log_text(message text, context jsonb, record text, person text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ' ' || circuit.log_plain(left(message, 20000) || coalesce(' ' || record, '') || coalesce(' ' || person, '')
                                || coalesce(' ' || replace(replace(left(context::text, 30000), '\n', ' '), '\t', ' '),
                                            '')) || ' ';

-- Each SELECT costs as much as all the rest: a usual line has one.
CREATE FUNCTION circuit.log_words(
    message text, context jsonb, level text, handler text, tenant text, record text, person text
) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 5000 AS $$
DECLARE
    fields text[];
    said text;
    words text[];
BEGIN
    IF jsonb_typeof(context) <> 'object' THEN
        said := context #>> '{}';
    ELSIF context @? '$.* ? (@.type() == "object" || @.type() == "array")' THEN
        SELECT array_agg(circuit.log_field(f.key, f.value)), string_agg(f.value, ' ')
        INTO fields, said FROM circuit.log_fields(context) AS f;
    ELSIF context IS NOT NULL THEN  -- nearly always, and much faster
        SELECT array_agg('=' || lower(left(f.key, 60)) || '=' || lower(left(f.value, 100))), string_agg(f.value, ' ')
        INTO fields, said FROM jsonb_each_text(context) AS f WHERE f.value IS NOT NULL;
    END IF;
    said := btrim(circuit.log_plain(concat_ws(' ', left(message, 20000), left(record, 200), left(person, 200),
                                              left(said, 20000))));
    words := string_to_array(said, ' ');
    IF length(said) > 500 THEN  -- a lexeme has 2046 bytes at most; a short text has none that is longer
        SELECT array_agg(left(w, 100)) INTO words FROM unnest(words) AS w;
    END IF;
    words := words || fields[:1000] || ARRAY[':level:' || level, ':tenant:' || lower(left(tenant, 200))];
    IF handler IS NULL THEN
        RETURN array_to_tsvector(words);
    END IF;
    RETURN array_to_tsvector(words || (':handler:' || lower(left(split_part(handler, '.', -1), 200))));
END $$;

-- An execution that failed is a line, too: its handler could not log it.
CREATE FUNCTION circuit.ended_level(status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN status IN ('cancelled', 'deferred') THEN 'info' ELSE 'error' END;

CREATE FUNCTION circuit.ended_said(status text, reason text, detail text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN status || ': ' || coalesce(reason, '') || coalesce(' ' || left(detail, 8000), '');

CREATE FUNCTION circuit.ended_words(status text, reason text, detail text, tenant text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 5000
RETURN circuit.log_words(circuit.ended_said(status, reason, detail), NULL, circuit.ended_level(status), NULL, tenant,
                         NULL, NULL);

-- Indexes ----------------------------------------------------------------------------------------
-- Where there are many lines already, an index of them takes minutes, in which nobody could write. So only what is
-- small gets one here; maintenance builds those of the other partitions one by one, while all goes on.

-- A list that is merged into the index at 4 MB is short enough to be looked through by every search.
CREATE INDEX circuit_logs_words ON ONLY circuit.circuit_logs USING gin (
    circuit.log_words(message, context, level, handler, tenant, record, "user")
) WITH (gin_pending_list_limit = 4096);
CREATE INDEX circuit_logs_trace ON ONLY circuit.circuit_logs (trace) WHERE trace IS NOT NULL;
CREATE INDEX executions_words ON ONLY circuit.executions USING gin (
    circuit.ended_words(status, reason, detail, tenant)
) WITH (gin_pending_list_limit = 1024) WHERE status NOT IN ('succeeded', 'echo');
CREATE INDEX executions_told ON ONLY circuit.executions (id) WHERE status NOT IN ('succeeded', 'echo');

-- Partitions that lack one of these, with the statements that make it; `most` is how many bytes a table may have.
CREATE FUNCTION circuit.indexes_to_build(most bigint DEFAULT NULL)
RETURNS TABLE (part text, index text, build text, attach text)
LANGUAGE sql STABLE AS $$
    SELECT c.relname::text, n.name,
           regexp_replace(pg_get_indexdef(i.indexrelid), '^CREATE INDEX \S+ ON ONLY \S+ ',
                          format('CREATE INDEX CONCURRENTLY %I ON circuit.%I ', n.name, c.relname)),
           format('ALTER INDEX circuit.%I ATTACH PARTITION circuit.%I', p.relname, n.name)
    FROM pg_index i
    JOIN pg_class p ON p.oid = i.indexrelid AND p.relkind = 'I'
    JOIN pg_inherits h ON h.inhparent = i.indrelid
    JOIN pg_class c ON c.oid = h.inhrelid
    CROSS JOIN LATERAL (SELECT left(c.relname || '_' || p.relname, 63) AS name) AS n
    WHERE p.relnamespace = to_regnamespace('circuit') AND NOT i.indisvalid
      AND (most IS NULL OR pg_relation_size(c.oid) <= most)
      AND NOT EXISTS (SELECT FROM pg_inherits a JOIN pg_index x ON x.indexrelid = a.inhrelid
                      WHERE a.inhparent = p.oid AND x.indrelid = c.oid)
    ORDER BY c.relname DESC, n.name
$$;

DO $$
DECLARE
    each record;
BEGIN
    FOR each IN SELECT * FROM circuit.indexes_to_build(8000000) LOOP
        EXECUTE replace(each.build, ' CONCURRENTLY ', ' ');
        EXECUTE each.attach;
    END LOOP;
END $$;

-- Autovacuum would count the words of thirty thousand lines, again and again while a day grows, and no plan needs to
-- know: a search always asks the index. New partitions are seen to by maintenance.
CREATE FUNCTION circuit.count_no_words() RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    each text;
    found integer := 0;
BEGIN
    FOR each IN
        SELECT x.relname FROM pg_inherits h
        JOIN pg_class x ON x.oid = h.inhrelid JOIN pg_attribute a ON a.attrelid = x.oid
        WHERE h.inhparent = to_regclass('circuit.circuit_logs_words') AND a.attstattarget IS DISTINCT FROM 0
    LOOP
        EXECUTE format('ALTER INDEX circuit.%I ALTER COLUMN 1 SET STATISTICS 0', each);
        found := found + 1;
    END LOOP;
    RETURN found;
END $$;
SELECT circuit.count_no_words();

-- Search -----------------------------------------------------------------------------------------

-- A question, made ready once: `parts` are texts that each must occur, `phrases` are patterns of words in order, `words`
-- and `ended` what the indexes of lines and of failed executions are asked.
CREATE TYPE circuit.log_asked AS (
    levels text[], handler text, record text, person text, trace text, since timestamptz, until timestamptz,
    executions uuid[], parts text[], phrases text[], fields boolean, words tsquery, ended tsquery
);

CREATE FUNCTION circuit.log_lexeme(said text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '''' || replace(replace(said, '\', '\\'), '''', '''''') || '''';

-- `words` are words and phrases as they were written, `said` what else one lexeme of each list must say.
CREATE FUNCTION circuit.log_ask(
    asked circuit.log_asked, words text[], keys text[], vals text[], tenant text, rare_levels text[]
) RETURNS circuit.log_asked
LANGUAGE plpgsql STABLE AS $$
DECLARE
    tokens text[];
    said text;
    lexemes text[] := '{}';
    shared text[] := '{}';
BEGIN
    FOREACH said IN ARRAY words LOOP
        tokens := string_to_array(btrim(circuit.log_plain(left(said, 2000))), ' ');
        CONTINUE WHEN tokens = '{}' OR tokens = '{""}';
        IF cardinality(tokens) > 1 THEN
            asked.phrases := asked.phrases || ('% ' || array_to_string(tokens, ' ') || '%');
        END IF;
        FOR n IN 1 .. cardinality(tokens) LOOP
            asked.parts := asked.parts || ('%' || left(tokens[n], 100) || '%');
            shared := shared || (circuit.log_lexeme(left(tokens[n], 100))
                                 || CASE WHEN n = cardinality(tokens) AND length(tokens[n]) >= 3 THEN ':*' ELSE '' END);
        END LOOP;
    END LOOP;
    IF tenant IS NOT NULL THEN
        shared := shared || circuit.log_lexeme(':tenant:' || lower(left(tenant, 200)));
    END IF;
    IF rare_levels IS NOT NULL THEN
        shared := shared || ('(' || (SELECT string_agg(circuit.log_lexeme(':level:' || l), ' | ')
                                     FROM unnest(rare_levels) AS l) || ')');
    END IF;
    FOR n IN 1 .. coalesce(cardinality(keys), 0) LOOP
        lexemes := lexemes || circuit.log_lexeme(circuit.log_field(keys[n], vals[n]));
        asked.parts := asked.parts || (SELECT array_agg('%' || w || '%') FROM unnest(string_to_array(
            btrim(circuit.log_plain(left(vals[n], 100))), ' ')) AS w);
    END LOOP;
    FOREACH said IN ARRAY ARRAY[asked.record, asked.person] LOOP
        FOREACH said IN ARRAY string_to_array(btrim(circuit.log_plain(coalesce(left(said, 200), ''))), ' ') LOOP
            CONTINUE WHEN said = '';
            lexemes := lexemes || circuit.log_lexeme(left(said, 100));
        END LOOP;
    END LOOP;
    IF asked.handler IS NOT NULL THEN
        lexemes := lexemes
            || circuit.log_lexeme(':handler:' || lower(left(split_part(asked.handler, '.', -1), 200)));
    END IF;
    asked.fields := coalesce(cardinality(keys), 0) > 0;
    asked.ended := nullif(array_to_string(shared, ' & '), '')::tsquery;
    asked.words := nullif(array_to_string(shared || lexemes, ' & '), '')::tsquery;
    RETURN asked;
END $$;

CREATE FUNCTION circuit.whole_xid(low xid, top bigint) RETURNS xid8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ((top >> 32 << 32) + low::text::bigint
        - CASE WHEN low::text::bigint > (top & 4294967295) THEN 4294967296 ELSE 0 END)::text::xid8;

-- Whether a line is one that was asked for, but for its words as the index has them.
CREATE FUNCTION circuit.log_fits(
    asked circuit.log_asked, at timestamptz, level text, message text, context jsonb, execution uuid, handler text,
    record text, trace text, person text
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ((asked).levels IS NULL OR level = ANY ((asked).levels))
   AND ((asked).handler IS NULL OR handler = (asked).handler
        OR right(handler, length((asked).handler) + 1) = '.' || (asked).handler)
   AND ((asked).record IS NULL OR record = (asked).record)
   AND ((asked).person IS NULL OR person = (asked).person)
   AND ((asked).trace IS NULL OR coalesce(trace, replace(execution::text, '-', '')) = (asked).trace)
   AND ((asked).since IS NULL OR at >= (asked).since)
   AND ((asked).until IS NULL OR at < (asked).until)
   AND ((asked).executions IS NULL OR execution = ANY ((asked).executions))
   AND ((asked).parts IS NULL
        OR lower(message || coalesce(' ' || context::text, '') || coalesce(' ' || record, '')
                 || coalesce(' ' || person, '')) LIKE ALL ((asked).parts))
   AND ((asked).phrases IS NULL OR circuit.log_text(message, context, record, person) LIKE ALL ((asked).phrases));

CREATE FUNCTION circuit.ended_context(records smallint, detail text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_strip_nulls(jsonb_build_object('records', records, 'detail', left(detail, 2000)));

-- Lines of executions from `lo` to `hi` (of `hi` itself, those before `hi_at`), newest first. `whose` is a tenant, or
-- null for everybody's. `plain` looks at each line; otherwise the indexes say which.
CREATE FUNCTION circuit.find_log(
    asked circuit.log_asked, whose text, lo uuid, hi uuid, hi_at timestamptz, most integer, plain boolean
) RETURNS TABLE (
    at timestamptz, level text, message text, context jsonb, execution uuid, handler text, tenant text, record text,
    trace text, person text, release bigint
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF plain OR asked.words IS NULL THEN
        RETURN QUERY
        SELECT l.at, l.level, l.message, l.context, l.execution, l.handler, l.tenant, l.record, l.trace, l."user",
               l.release
        FROM circuit.circuit_logs l
        WHERE l.execution >= lo AND l.execution <= hi AND (l.execution < hi OR l.at <= hi_at)
          AND (whose IS NULL OR l.tenant = whose)
          AND circuit.log_fits(asked, l.at, l.level, l.message, l.context, l.execution, l.handler, l.record, l.trace,
                               l."user")
          AND (asked.words IS NULL OR circuit.log_words(l.message, l.context, l.level, l.handler, l.tenant, l.record,
                                                        l."user") || ''::tsvector @@ asked.words)
        ORDER BY l.execution DESC, l.at DESC, l.message LIMIT most;
    ELSE
        RETURN QUERY
        WITH found AS MATERIALIZED (
            SELECT l.at, l.level, l.message, l.context, l.execution, l.handler, l.tenant, l.record, l.trace, l."user",
                   l.release
            FROM circuit.circuit_logs l
            WHERE circuit.log_words(l.message, l.context, l.level, l.handler, l.tenant, l.record, l."user") @@ asked.words
              AND l.execution >= lo AND l.execution <= hi AND (l.execution < hi OR l.at <= hi_at)
              AND (whose IS NULL OR l.tenant = whose)
              AND circuit.log_fits(asked, l.at, l.level, l.message, l.context, l.execution, l.handler, l.record,
                                   l.trace, l."user")
        )
        SELECT * FROM found ORDER BY execution DESC, at DESC, message LIMIT most;
    END IF;
END $$;

-- The same of executions that failed.
CREATE FUNCTION circuit.find_ended(
    asked circuit.log_asked, whose text, lo uuid, hi uuid, hi_at timestamptz, most integer, plain boolean
) RETURNS TABLE (
    at timestamptz, level text, message text, context jsonb, execution uuid, handler text, tenant text, record text,
    trace text, person text, release bigint
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF asked.record IS NOT NULL OR asked.person IS NOT NULL OR asked.fields THEN
        RETURN;
    ELSIF plain OR asked.ended IS NULL THEN
        RETURN QUERY
        SELECT x.ended_at, circuit.ended_level(x.status), x.status || ': ' || coalesce(x.reason, ''),
               circuit.ended_context(x.records, x.detail), x.id, coalesce(h.name, x.handler::text), x.tenant,
               NULL::text, NULL::text, NULL::text, x.release
        FROM circuit.executions x LEFT JOIN circuit.handlers h ON h.id = x.handler
        WHERE x.status NOT IN ('succeeded', 'echo')
          AND x.id >= lo AND x.id <= hi AND (x.id < hi OR x.ended_at <= hi_at)
          AND (whose IS NULL OR x.tenant = whose)
          AND circuit.log_fits(asked, x.ended_at, circuit.ended_level(x.status),
                               circuit.ended_said(x.status, x.reason, x.detail), NULL, x.id,
                               coalesce(h.name, x.handler::text), NULL, NULL, NULL)
          AND (asked.ended IS NULL
               OR circuit.ended_words(x.status, x.reason, x.detail, x.tenant) || ''::tsvector @@ asked.ended)
        ORDER BY x.id DESC LIMIT most;
    ELSE
        RETURN QUERY
        WITH found AS MATERIALIZED (
            SELECT x.* FROM circuit.executions x
            WHERE x.status NOT IN ('succeeded', 'echo')
              AND circuit.ended_words(x.status, x.reason, x.detail, x.tenant) @@ asked.ended
              AND x.id >= lo AND x.id <= hi AND (x.id < hi OR x.ended_at <= hi_at)
              AND (whose IS NULL OR x.tenant = whose)
        )
        SELECT x.ended_at, circuit.ended_level(x.status), x.status || ': ' || coalesce(x.reason, ''),
               circuit.ended_context(x.records, x.detail), x.id, coalesce(h.name, x.handler::text), x.tenant,
               NULL::text, NULL::text, NULL::text, x.release
        FROM found x LEFT JOIN circuit.handlers h ON h.id = x.handler
        WHERE circuit.log_fits(asked, x.ended_at, circuit.ended_level(x.status),
                               circuit.ended_said(x.status, x.reason, x.detail), NULL, x.id,
                               coalesce(h.name, x.handler::text), NULL, NULL, NULL)
        ORDER BY x.id DESC LIMIT most;
    END IF;
END $$;

-- What has been committed since `seen`, of executions from `lo` on. xmin has 32 bits; its upper ones are those of the
-- snapshot, unless it lies behind the snapshot's end.
CREATE FUNCTION circuit.log_since(asked circuit.log_asked, lo uuid, seen pg_snapshot) RETURNS TABLE (
    at timestamptz, level text, message text, context jsonb, execution uuid, handler text, tenant text, record text,
    trace text, person text, release bigint
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    top bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
BEGIN
    RETURN QUERY
    SELECT l.at, l.level, l.message, l.context, l.execution, l.handler, l.tenant, l.record, l.trace, l."user", l.release
    FROM circuit.circuit_logs l
    WHERE l.execution >= lo AND NOT pg_visible_in_snapshot(circuit.whole_xid(l.xmin, top), seen)
      AND circuit.log_fits(asked, l.at, l.level, l.message, l.context, l.execution, l.handler, l.record, l.trace,
                           l."user")
      AND (asked.words IS NULL OR circuit.log_words(l.message, l.context, l.level, l.handler, l.tenant, l.record,
                                                    l."user") @@ asked.words)
    UNION ALL
    SELECT x.ended_at, circuit.ended_level(x.status), x.status || ': ' || coalesce(x.reason, ''),
           circuit.ended_context(x.records, x.detail), x.id, coalesce(h.name, x.handler::text), x.tenant,
           NULL::text, NULL::text, NULL::text, x.release
    FROM circuit.executions x LEFT JOIN circuit.handlers h ON h.id = x.handler
    WHERE x.status NOT IN ('succeeded', 'echo') AND asked.record IS NULL AND asked.person IS NULL AND NOT asked.fields
      AND x.id >= lo AND NOT pg_visible_in_snapshot(circuit.whole_xid(x.xmin, top), seen)
      AND circuit.log_fits(asked, x.ended_at, circuit.ended_level(x.status),
                           circuit.ended_said(x.status, x.reason, x.detail), NULL, x.id,
                           coalesce(h.name, x.handler::text), NULL, NULL, NULL)
      AND (asked.ended IS NULL OR circuit.ended_words(x.status, x.reason, x.detail, x.tenant) @@ asked.ended)
    ORDER BY 1;
END $$;

-- Where the newest `lines` lines before `hi` begin, as a moment: null where there are not so many.
CREATE FUNCTION circuit.log_floor(hi uuid, lines integer) RETURNS uuid
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found uuid;
BEGIN
    SELECT l.execution INTO found FROM circuit.circuit_logs l
    WHERE l.execution <= hi ORDER BY l.execution DESC OFFSET lines LIMIT 1;
    RETURN (left(found::text, 13) || '-0000-0000-000000000000')::uuid;
END $$;

-- The same three for a tenant: of its own lines only, whoever asks. These may use the indexes, which row security keeps
-- from comparing words of rows that it has not looked at.
CREATE FUNCTION circuit.my_log(
    asked circuit.log_asked, lo uuid, hi uuid, hi_at timestamptz, most integer, plain boolean, ended boolean
) RETURNS TABLE (
    at timestamptz, level text, message text, context jsonb, execution uuid, handler text, tenant text, record text,
    trace text, person text, release bigint
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF circuit.current_tenant() IS NULL THEN
        RETURN;
    ELSIF ended THEN
        RETURN QUERY SELECT * FROM circuit.find_ended(asked, circuit.current_tenant(), lo, hi, hi_at, most, plain);
    ELSE
        RETURN QUERY SELECT * FROM circuit.find_log(asked, circuit.current_tenant(), lo, hi, hi_at, most, plain);
    END IF;
END $$;

CREATE FUNCTION circuit.my_log_floor(hi uuid, lines integer) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'SELECT circuit.log_floor(hi, lines)';

REVOKE EXECUTE ON FUNCTION circuit.find_log, circuit.find_ended, circuit.log_floor, circuit.my_log,
    circuit.my_log_floor, circuit.indexes_to_build, circuit.count_no_words FROM PUBLIC;
GRANT EXECUTE ON FUNCTION circuit.find_log, circuit.find_ended, circuit.log_floor, circuit.indexes_to_build,
    circuit.count_no_words TO circuit_road;
GRANT EXECUTE ON FUNCTION circuit.my_log, circuit.my_log_floor TO circuit_tenant;

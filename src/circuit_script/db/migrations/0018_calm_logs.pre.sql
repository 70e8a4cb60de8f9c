-- Lines of the log only come in. Autovacuum would go over a growing day every quarter of a minute, and take as long as
-- writing it did: to count what no plan asks for, and to merge words which are merged at 4 MB anyway. Half a million
-- lines are few enough for a plain vacuum. New partitions are seen to by maintenance.
CREATE OR REPLACE FUNCTION circuit.count_no_words() RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    each record;
    found integer := 0;
BEGIN
    FOR each IN
        SELECT x.relname AS index, t.relname AS part, a.attstattarget IS DISTINCT FROM 0 AS counts,
               coalesce(t.reloptions::text, '') !~ 'vacuum_insert' AS restless
        FROM pg_inherits h
        JOIN pg_index i ON i.indexrelid = h.inhrelid
        JOIN pg_class x ON x.oid = h.inhrelid JOIN pg_class t ON t.oid = i.indrelid
        JOIN pg_attribute a ON a.attrelid = x.oid
        WHERE h.inhparent = to_regclass('circuit.circuit_logs_words')
    LOOP
        IF each.counts THEN
            EXECUTE format('ALTER INDEX circuit.%I ALTER COLUMN 1 SET STATISTICS 0', each.index);
            found := found + 1;
        END IF;
        IF each.restless THEN
            EXECUTE format('ALTER TABLE circuit.%I SET (autovacuum_vacuum_insert_scale_factor = 0.2, '
                           'autovacuum_vacuum_insert_threshold = 500000, autovacuum_analyze_threshold = 500000)',
                           each.part);
        END IF;
    END LOOP;
    RETURN found;
END $$;
SELECT circuit.count_no_words();

-- The same words as ever, of a usual line for half: without a SELECT, which costs as much as all the rest, and without a
-- regular expression that finds every blank. Indexes are built over this, so it must never find others.
CREATE OR REPLACE FUNCTION circuit.log_words(
    message text, context jsonb, level text, handler text, tenant text, record text, person text
) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 5000 AS $$
DECLARE
    flat jsonb := context;
    shown text := context::text;
    plain text;  -- `=lead=4711` and so on, with \x01 between them, which in JSON has a backslash
    fields text[];  -- the same where that cannot be had
    said text;
    words text[];
BEGIN
    IF strpos(shown, ': null') > 0 THEN  -- a null has no words
        flat := jsonb_strip_nulls(context);
        shown := flat::text;
    END IF;
    -- Without a backslash every quote begins or ends a key or a value. Not taken are objects that are not flat, and those
    -- where `, "` could end a key or a value rather than divide two fields.
    IF shown LIKE '{"%' AND strpos(shown, '\') = 0 AND strpos(shown, ': {') = 0 AND strpos(shown, ': [') = 0
       AND strpos(shown, ', ":') = 0 AND strpos(shown, ', "}') = 0 AND strpos(shown, '": ", "') = 0
    THEN
        shown := '=' || rtrim(rtrim(replace(replace(replace(replace(
            substr(shown, 3), '", "', E'\x01='), ', "', E'\x01='), '": "', '='), '": ', '='), '}'), '"');
        -- Only if nothing is to be cut: a key has 60 characters at most, so a short field needs no look at where it ends.
        IF length(shown) <= 62
           OR length(shown) <= 10000 AND shown = array_to_string(string_to_array(shown, E'\x01')::varchar(62)[], E'\x01')
        THEN
            plain := lower(shown);
            said := btrim(jsonb_path_query_array(flat, '$.*')::text, '[]');
        END IF;
    END IF;
    IF plain IS NULL AND context IS NOT NULL THEN
        IF jsonb_typeof(context) <> 'object' THEN
            said := context #>> '{}';
        ELSIF context @? '$.* ? (@.type() == "object" || @.type() == "array")' THEN
            SELECT array_agg(circuit.log_field(f.key, f.value)), string_agg(f.value, ' ')
            INTO fields, said FROM circuit.log_fields(context) AS f;
        ELSE
            SELECT array_agg('=' || lower(left(f.key, 60)) || '=' || lower(left(f.value, 100))), string_agg(f.value, ' ')
            INTO fields, said FROM jsonb_each_text(context) AS f WHERE f.value IS NOT NULL;
        END IF;
    END IF;
    said := lower(concat_ws(' ', left(message, 20000), left(record, 200), left(person, 200), left(said, 20000)));
    -- By what log_plain divides: the expression pays for each place it finds, so frequent ones are replaced first.
    said := regexp_replace(
        replace(replace(replace(replace(replace(replace(said, ' ', E'\x01'), '"', E'\x01'), ',', E'\x01'), '.', E'\x01'),
                '-', E'\x01'), ':', E'\x01'),
        '[\u0002-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u2000-\u206f\u3000-\u3003]+', E'\x01', 'g');
    IF length(said) <= 500 AND fields IS NULL AND handler IS NOT NULL THEN  -- nearly always
        RETURN array_to_tsvector(
            array_remove(string_to_array(concat_ws(E'\x01', said, plain), E'\x01'), '')
            || ARRAY[':level:' || level, ':tenant:' || lower(left(tenant, 200)),
                     ':handler:' || lower(left(split_part(handler, '.', -1), 200))]);
    END IF;
    words := array_remove(string_to_array(said, E'\x01'), '');
    IF length(said) > 500 AND length(array_to_string(words, ' ')) > 500 THEN
        -- A lexeme has 2046 bytes at most; a short text has none that is longer.
        SELECT array_agg(left(w, 100)) INTO words FROM unnest(words) AS w;
    END IF;
    words := words || coalesce(fields[:1000], string_to_array(plain, E'\x01'))
        || ARRAY[':level:' || level, ':tenant:' || lower(left(tenant, 200))];
    IF handler IS NULL THEN
        RETURN array_to_tsvector(words);
    END IF;
    RETURN array_to_tsvector(words || (':handler:' || lower(left(split_part(handler, '.', -1), 200))));
END $$;

-- Dead letters: what became of each, who said so and when.

-- What a reason says without its particulars, by which letters of one cause are counted together: its first line, with
-- quoted text, ids and numbers left out. At most 120 characters, so that an index can hold it.
CREATE FUNCTION circuit.cause_of(reason text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN left(regexp_replace(regexp_replace(regexp_replace(
    left(split_part(reason, E'\n', 1), 300),
    '''[^'']*''|"[^"]*"', '''…''', 'g'),
    '[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|\m[0-9a-fA-F]{16,}\M', '…', 'g'),
    '\m\d[\d.,]*', 'N', 'g'), 120);

-- `event_id`, `object` and `event` are those of the queue row that died; `journal` knows its calls by that id.
-- `by`, `closed_at` and `why` say who closed the letter: `retried` put it on the road again (as event `again`, from the
-- delivery `edited` where a person changed the payload; of an edited effect `was` is its payload before), `discarded`
-- left it.
ALTER TABLE circuit.dead_letters
    ADD COLUMN event_id  bigint,
    ADD COLUMN object    text,
    ADD COLUMN event     text,
    ADD COLUMN cause     text NOT NULL GENERATED ALWAYS AS (circuit.cause_of(reason)) STORED,
    ADD COLUMN status    text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'retried', 'discarded')),
    ADD COLUMN by        text,
    ADD COLUMN closed_at timestamptz,
    ADD COLUMN why       text,
    ADD COLUMN again     bigint,
    ADD COLUMN edited    uuid,
    ADD COLUMN was       jsonb,
    ADD CONSTRAINT closed_by_somebody CHECK ((status = 'open') = (closed_at IS NULL)
                                             AND (status = 'open') = (by IS NULL));
CREATE INDEX dead_letters_open ON circuit.dead_letters (cause) INCLUDE (effect) WHERE status = 'open';
CREATE INDEX dead_letters_events ON circuit.dead_letters (event_id, handler) WHERE status = 'open';
CREATE INDEX dead_letters_delivery ON circuit.dead_letters (delivery) WHERE delivery IS NOT NULL;
CREATE INDEX dead_letters_effect ON circuit.dead_letters (effect) WHERE effect IS NOT NULL;

CREATE INDEX effects_in_doubt ON circuit.effects (id) WHERE status = 'in_doubt';

-- What vendors answered to effects that were not delivered at once: those that were cost nothing here.
CREATE TABLE circuit.effect_answers (
    effect  uuid NOT NULL,
    tenant  text NOT NULL,
    attempt smallint NOT NULL,
    status  text NOT NULL,
    said    text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX effect_answers_effect ON circuit.effect_answers (effect, at);
CREATE INDEX effect_answers_at ON circuit.effect_answers (at);

CREATE FUNCTION circuit.keep_answer() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO circuit.effect_answers (effect, tenant, attempt, status, said)
    VALUES (NEW.id, NEW.tenant, NEW.attempts, NEW.status,
            CASE WHEN NEW.status = 'delivered' THEN '' ELSE left(coalesce(NEW.reason, ''), 2000) END);
    RETURN NULL;
END $$;
CREATE TRIGGER keep_answer AFTER UPDATE OF attempts ON circuit.effects
    FOR EACH ROW WHEN (NEW.attempts > OLD.attempts AND (NEW.status <> 'delivered' OR OLD.attempts > 0))
    EXECUTE FUNCTION circuit.keep_answer();

SELECT circuit.of_tenant('circuit.effect_answers');

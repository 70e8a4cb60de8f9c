-- Shadows: a release that is not live runs on what live executions were given and have read; what it would have done is
-- compared with what they did, and never leaves.

-- What one live execution was given, read and did. It holds customers' data, as the ledger does.
CREATE TABLE circuit.recordings (
    execution uuid PRIMARY KEY,
    release   bigint NOT NULL,
    tenant    text,
    handler   text NOT NULL,
    object    text NOT NULL,
    event     text NOT NULL,
    records   integer NOT NULL,
    bytes     integer NOT NULL,
    body      bytea NOT NULL
);
COMMENT ON COLUMN circuit.recordings.execution IS 'its id tells when it began';
COMMENT ON COLUMN circuit.recordings.bytes IS 'of the body as it is stored';
COMMENT ON COLUMN circuit.recordings.body IS 'compressed; PostgreSQL has nothing to win by trying again';
ALTER TABLE circuit.recordings ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE circuit.shadows (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release        bigint NOT NULL REFERENCES circuit.releases,
    against        bigint NOT NULL REFERENCES circuit.releases,
    opened_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    by_whom        text NOT NULL,
    message        text NOT NULL DEFAULT '',
    sample         double precision NOT NULL DEFAULT 1.0 CHECK (sample > 0 AND sample <= 1),
    until          timestamptz,
    promote_below  double precision,
    least          integer NOT NULL DEFAULT 100,
    note           text NOT NULL DEFAULT '',
    skipped_sample bigint NOT NULL DEFAULT 0,
    skipped_rate   bigint NOT NULL DEFAULT 0,
    skipped_size   bigint NOT NULL DEFAULT 0,
    closed_at      timestamptz,
    closed_why     text
);
COMMENT ON COLUMN circuit.shadows.against IS 'what is live meanwhile';
COMMENT ON COLUMN circuit.shadows.until IS 'when it is closed by itself; null: when somebody says so';
COMMENT ON COLUMN circuit.shadows.promote_below IS 'the share of records that may differ, of which it goes live by itself; null: it does not';
COMMENT ON COLUMN circuit.shadows.least IS 'how many records must be compared before that';
COMMENT ON COLUMN circuit.shadows.skipped_sample IS 'executions that were not recorded, as the sample left them out';
COMMENT ON COLUMN circuit.shadows.skipped_rate IS 'those that were too many in a second';
COMMENT ON COLUMN circuit.shadows.skipped_size IS 'those that had too much to keep';
CREATE UNIQUE INDEX shadows_open ON circuit.shadows ((true)) WHERE closed_at IS NULL;

-- What came of one recording. Whoever takes it is the only one to count it; who is gone with it has it taken away.
CREATE TABLE circuit.comparisons (
    shadow       bigint NOT NULL,
    execution    uuid NOT NULL,
    worker       uuid NOT NULL,
    taken_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    state        text NOT NULL DEFAULT 'taken' CHECK (state IN ('taken', 'same', 'different', 'incomparable')),
    tenant       text,
    handler      text NOT NULL DEFAULT '',
    records      integer NOT NULL DEFAULT 0,
    different    integer NOT NULL DEFAULT 0,
    incomparable integer NOT NULL DEFAULT 0,
    live_ms      real,
    shadow_ms    real,
    live_cost    numeric,
    shadow_cost  numeric,
    live_calls   integer,
    shadow_calls integer,
    differences  jsonb NOT NULL DEFAULT '[]',
    PRIMARY KEY (shadow, execution)
) WITH (fillfactor = 70);
CREATE INDEX comparisons_state ON circuit.comparisons (shadow, state);

SELECT circuit.of_road('circuit.recordings');
SELECT circuit.of_road('circuit.shadows');
SELECT circuit.of_road('circuit.comparisons');
GRANT USAGE ON ALL SEQUENCES IN SCHEMA circuit TO circuit_road;

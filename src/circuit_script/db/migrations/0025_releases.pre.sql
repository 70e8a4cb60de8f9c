-- Releases that are deployed: what was said of them, which worker has them ready, and each change of what is live.

ALTER TABLE circuit.releases
    ADD COLUMN version      text UNIQUE,
    ADD COLUMN author       text NOT NULL DEFAULT '',
    ADD COLUMN message      text NOT NULL DEFAULT '',
    ADD COLUMN requirements text NOT NULL DEFAULT '',
    ADD COLUMN report       jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN wanted_at    timestamptz;
COMMENT ON COLUMN circuit.releases.version IS 'v1.4.2; null for what ran from its folder and was never deployed';
COMMENT ON COLUMN circuit.releases.requirements IS 'the pinned packages that it needs, as pip reads them';
COMMENT ON COLUMN circuit.releases.report IS 'what its tests said when it was deployed';
COMMENT ON COLUMN circuit.releases.wanted_at IS 'when workers were last asked to have it ready; null: never';

-- Who works for a tenant, and how it was tested, is not the tenant's business.
REVOKE SELECT ON circuit.releases FROM circuit_tenant;
GRANT SELECT (id, content_hash, platform, manifest, created_at, version) ON circuit.releases TO circuit_tenant;

-- Each change of what is live that somebody asked for. While there is none, workers run the files of their folder.
CREATE TABLE circuit.moves (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    release     bigint NOT NULL REFERENCES circuit.releases,
    before      bigint REFERENCES circuit.releases,
    kind        text NOT NULL,
    by_whom     text NOT NULL,
    reason      text NOT NULL DEFAULT '',
    watch_until timestamptz,
    looked_at   timestamptz,
    watched     text
);
COMMENT ON COLUMN circuit.moves.before IS 'what was live until then; null: nothing was';
COMMENT ON COLUMN circuit.moves.kind IS 'deploy, rollback, automatic rollback, folder';
COMMENT ON COLUMN circuit.moves.watch_until IS 'until when its errors are watched; null: they are not';
COMMENT ON COLUMN circuit.moves.looked_at IS 'when a worker last looked at those errors';
COMMENT ON COLUMN circuit.moves.watched IS 'what came of the watch; null: it goes on, or there was none';
CREATE INDEX moves_watched ON circuit.moves (id) WHERE watch_until IS NOT NULL AND watched IS NULL;

-- How far each worker is with a release that it was asked to have ready.
CREATE TABLE circuit.release_hosts (
    release bigint NOT NULL REFERENCES circuit.releases,
    worker  uuid NOT NULL,
    state   text NOT NULL CHECK (state IN ('preparing', 'ready', 'failed')),
    detail  text NOT NULL DEFAULT '',
    since   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (release, worker)
) WITH (fillfactor = 70);

SELECT circuit.of_road('circuit.moves');
SELECT circuit.of_road('circuit.release_hosts');
GRANT USAGE ON ALL SEQUENCES IN SCHEMA circuit TO circuit_road;

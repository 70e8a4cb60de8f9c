-- What was learned about addresses, districts and people from outside, until it expires; and who asks for what now, so
-- that nobody asks for the same at once. The tenant '' is everybody's: what follows from an address by public sources.

CREATE TABLE circuit.enrichments (
    tenant        text NOT NULL,
    source        text NOT NULL CHECK (source <> ''),
    key           bytea NOT NULL,
    data          jsonb,
    fetched_at    timestamptz,
    expires_at    timestamptz,
    claimed_by    uuid,
    claimed_until timestamptz,
    records       text[] NOT NULL DEFAULT '{}',
    about         text NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, source, key)
) WITH (fillfactor = 80);
COMMENT ON COLUMN circuit.enrichments.key IS 'a hash of what was asked, as it was normalised';
COMMENT ON COLUMN circuit.enrichments.data IS 'null: the source knows nothing of it';
COMMENT ON COLUMN circuit.enrichments.expires_at IS 'null: nothing was fetched yet, somebody is about to';
COMMENT ON COLUMN circuit.enrichments.records IS 'of a tenant''s own rows: whom they are about, by their records, so that they can be forgotten';
COMMENT ON COLUMN circuit.enrichments.about IS 'the address by which a person was looked for, for the same reason';
CREATE INDEX enrichments_expired ON circuit.enrichments (expires_at);

SELECT circuit.of_tenant('circuit.enrichments', '(tenant, source, key, data, fetched_at, expires_at, records)');

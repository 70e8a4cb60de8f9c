-- A tenant's account at a vendor: what opens it, sealed, and until when. A tenant '' is everybody's: an agency, whose
-- locations get tokens of their own from it.

CREATE TABLE circuit.connections (
    tenant       text NOT NULL,
    connector    text NOT NULL CHECK (connector <> ''),
    account      text NOT NULL,
    base_url     text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('private', 'oauth', 'agency', 'location')),
    scopes       text NOT NULL DEFAULT '',
    access       bytea NOT NULL,
    refresh      bytea,
    expires_at   timestamptz,
    refreshed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    connected_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    broken       text,
    PRIMARY KEY (tenant, connector)
) WITH (fillfactor = 70);
COMMENT ON COLUMN circuit.connections.refresh IS 'null: there is none, as for private tokens and those of an agency''s locations';
COMMENT ON COLUMN circuit.connections.expires_at IS 'of the access token; null: it has no end';
COMMENT ON COLUMN circuit.connections.broken IS 'why the vendor gives no fresh token any more: a person has to connect again';

SELECT circuit.of_tenant('circuit.connections',
    '(tenant, connector, account, base_url, kind, scopes, expires_at, refreshed_at, connected_at, broken)');

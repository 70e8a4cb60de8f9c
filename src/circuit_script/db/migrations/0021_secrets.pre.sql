-- Vendors' tokens and keys, sealed before they come here: a copy of the database opens none of them. No tenant and no
-- handler sees the tables. The tenant '' is everybody's.

CREATE TABLE circuit.secrets (
    tenant     text NOT NULL,
    name       text NOT NULL CHECK (name <> ''),
    version    bigint NOT NULL DEFAULT 1,
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    by         text NOT NULL,
    PRIMARY KEY (tenant, name)
);
COMMENT ON COLUMN circuit.secrets.version IS 'how often it was put in; what was there before is gone';

-- Where a secret may be sent when a handler names it. It is kept here wherever the secret itself lies.
CREATE TABLE circuit.secret_hosts (
    tenant     text NOT NULL,
    name       text NOT NULL CHECK (name <> ''),
    hosts      text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    by         text NOT NULL,
    PRIMARY KEY (tenant, name)
);

SELECT circuit.of_road('circuit.secrets');
SELECT circuit.of_road('circuit.secret_hosts');

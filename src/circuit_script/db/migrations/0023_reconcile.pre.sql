-- Reconciliation: how far each CRM was asked what has changed in it, and what of that no webhook had told.

CREATE TABLE circuit.reconcile_cursors (
    tenant    text NOT NULL,
    connector text NOT NULL,
    object    text NOT NULL,
    starts    timestamptz NOT NULL DEFAULT now(),
    cursor    timestamptz NOT NULL DEFAULT now(),
    polled_at timestamptz,
    claim     uuid,
    claimed   timestamptz,
    more      boolean NOT NULL DEFAULT false,
    found     bigint NOT NULL DEFAULT 0,
    trouble   text,
    PRIMARY KEY (tenant, connector, object)
) WITH (fillfactor = 70);
COMMENT ON COLUMN circuit.reconcile_cursors.starts IS 'what has changed before is not looked for';
COMMENT ON COLUMN circuit.reconcile_cursors.cursor IS 'what has changed before was seen, by the vendor''s clock';
COMMENT ON COLUMN circuit.reconcile_cursors.polled_at IS 'null: nobody has polled it to an end yet';
COMMENT ON COLUMN circuit.reconcile_cursors.claimed IS 'until when one host polls, unless it says more; null: nobody does';
COMMENT ON COLUMN circuit.reconcile_cursors.more IS 'the last poll ended at its bound: the next one goes on at once';
COMMENT ON COLUMN circuit.reconcile_cursors.found IS 'changes that no webhook had told, of all polls';

-- Which deliveries were made by it, for a day: a webhook that comes later may say the same. `changed` is what the vendor
-- says of when the record was changed, in its field `field`.
CREATE TABLE circuit.reconciled (
    tenant   text NOT NULL,
    object   text NOT NULL,
    record   text NOT NULL,
    delivery uuid NOT NULL,
    field    text NOT NULL,
    changed  text NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, object, record, delivery)
);
CREATE INDEX reconciled_at ON circuit.reconciled (at);

SELECT circuit.of_tenant('circuit.reconcile_cursors');
SELECT circuit.of_tenant('circuit.reconciled');

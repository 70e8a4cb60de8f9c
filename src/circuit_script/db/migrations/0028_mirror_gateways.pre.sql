-- What each gateway knows of who acts on a mirrored source, and what the side before still has of it: a move counts for
-- all gateways once all have followed it, so that what a vendor sends again through another one is known by then.

CREATE TABLE circuit.mirror_gateways (
    gateway uuid NOT NULL,
    source  text NOT NULL,
    knows   timestamptz,
    open    integer NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (gateway, source)
) WITH (fillfactor = 50);
COMMENT ON COLUMN circuit.mirror_gateways.knows IS 'the move that it follows; null: none was ever made';
COMMENT ON COLUMN circuit.mirror_gateways.open IS 'deliveries that the side which acted before has not settled yet';
COMMENT ON COLUMN circuit.mirror_gateways.at IS 'a gateway that says nothing for seconds is gone; one that stops takes its rows along';

SELECT circuit.of_road('circuit.mirror_gateways');

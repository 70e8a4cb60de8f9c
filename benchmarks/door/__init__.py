"""What a developer feels: import, reload, an endpoint's answer, the quickstart (``make bench-door``)."""

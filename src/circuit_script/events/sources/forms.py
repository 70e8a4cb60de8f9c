"""Reading form bodies from strangers."""

from __future__ import annotations

from urllib.parse import parse_qsl

from circuit_script.events.sources.source import Reason, Record, malformed

MAX_FIELDS = 500

Pairs = list[tuple[str, str]]


def read_form(body: bytes) -> Pairs:
    """The fields of ``application/x-www-form-urlencoded``, blank ones, too. Raises IntakeRefused(400)."""
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        malformed(Reason.NOT_A_FORM, f"The body is not a form of at most {MAX_FIELDS} fields.")


def storable_form(pairs: Pairs) -> Record:
    """Fields as a record, the last of a name; NUL becomes U+FFFD."""
    return {name.replace("\0", "\ufffd"): value.replace("\0", "\ufffd") for name, value in pairs}

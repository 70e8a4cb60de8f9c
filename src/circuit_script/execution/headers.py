"""What is true of every HTTP header, in either direction."""

from __future__ import annotations

import re

# A connection's own (RFC 9110, 7.6.1): they are never passed on.
HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
UNSENT = HOP_BY_HOP | {"content-length", "expect"}  # of a request that is handed on: its length is told anew

is_name = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch  # RFC 9110, 5.6.2, in lower case
is_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch

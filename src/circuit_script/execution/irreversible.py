"""What cannot be taken back, by name: a message that leaves, a call, a record that is deleted, a request that changes
something elsewhere, a job that may do any of it.

A name is a connector's operation ("resend.send"), a method of HTTP ("http.post"), or the function that an author calls
("send_email", "resend.send_email"). What the connectors declare (`Operation.irreversible`) is held against this table
by a test. Not in it: writes of records, which can be written again, unless the record is a message that its making
sends (`Operation.irreversible_for`), and a reaction in Slack, which can be removed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

Act = tuple[str, str]  # a connector and its operation

HTTP = "http"  # stands for requests to hosts; their operations are methods, in lower case
CONNECT = "connect"  # a connection of which nobody knows what is said on it
CHANGING = ("post", "put", "patch", "delete")
CRMS = ("local", "gohighlevel", "hubspot", "salesforce")

# What a model gets to know as the result of its tool. What was read stays out.
TOLD = (
    "Refused: this was not done. It cannot be taken back, and this run has read text from outside. "
    "It stays refused in this run; the answer should say that it was not done."
)

_FUNCTIONS: Mapping[str, tuple[Act, ...]] = {
    "send_sms": (("twilio", "sms"),),
    "send_email": (("resend", "send"), ("resend", "batch")),
    "send_slack": (("slack", "post"),),
    "update_slack": (("slack", "update"),),
    "send_message": (("gohighlevel", "insert"), ("gohighlevel", "upsert")),
    "make_call": (("vapi", "call"),),
    "send_webhook": (("webhook", "post"),),
    "enqueue": (("jobs", "enqueue"),),
    "delete": tuple((crm, "delete") for crm in CRMS),
    "http": tuple((HTTP, method) for method in (*CHANGING, CONNECT)),
}


def _names() -> dict[str, frozenset[Act]]:
    found: dict[str, frozenset[Act]] = {}
    for function, acts in _FUNCTIONS.items():
        found[function] = frozenset(acts)
        for connector, operation in acts:
            found[f"{connector}.{operation}"] = frozenset({(connector, operation)})
        for connector in {connector for connector, _ in acts}:
            found.setdefault(f"{connector}.{function}", frozenset(each for each in acts if each[0] == connector))
    return found


NAMES: Mapping[str, frozenset[Act]] = _names()


def allowed_of(names: Collection[str]) -> frozenset[Act]:
    """What these names allow; one that nobody knows allows nothing."""
    return frozenset(act for name in names for act in NAMES.get(name, ()))


def named(connector: str, operation: str) -> str:
    """The name by which a refusal says what is to be allowed."""
    return f"{connector}.{operation}"

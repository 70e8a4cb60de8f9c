"""What a location says of its custom fields. Its other fields are the same everywhere: our schemas have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_script.connectors.gohighlevel.asking import Asking, place
from circuit_script.connectors.gohighlevel.objects import JULY, KINDS, listed
from circuit_script.errors import RequestRefused, VendorUnavailable
from circuit_script.schemas.facts import FieldFacts, Kind

TYPES: Mapping[str, Kind] = {
    "TEXT": "text", "LARGE_TEXT": "text", "EMAIL": "email", "PHONE": "phone", "NUMERICAL": "number",
    "MONETORY": "money", "DATE": "date", "SINGLE_OPTIONS": "choice", "RADIO": "choice", "CHECKBOX": "choices",
    "MULTIPLE_OPTIONS": "choices",
}  # fmt: skip


async def described(asking: Asking, tenant: str, object_: str) -> list[FieldFacts]:
    """Raises Failed, RequestRefused for an object without custom fields, VendorUnavailable for what says nothing."""
    kind = KINDS.get(object_)
    if kind is None or kind.model is None:
        known = ", ".join(sorted(name for name, each in KINDS.items() if each.model))
        raise RequestRefused(f"GoHighLevel has no list of fields of {object_}.", cure=f"It has those of {known}.")
    path = place("/locations/{location}/customFields", location=await asking.location(tenant))
    answer = await asking.ask(tenant, JULY, "GET", path, params={"model": kind.model})
    if not isinstance(answer, Mapping) or not isinstance(answer.get("customFields"), list):
        raise VendorUnavailable(f"GoHighLevel does not say what custom fields {object_} has.")
    taken = frozenset(kind.takes) | kind.keeps  # a custom field of such a key stands under its id only
    found = (_facts(each, kind.model, taken) for each in listed(answer, "customFields"))
    return [each for each in found if each is not None]


def _facts(said: Mapping[str, Any], model: str, taken: frozenset[str]) -> FieldFacts | None:
    """A field's facts; None for what is no field of this model."""
    identifier, key = said.get("id"), said.get("fieldKey")
    if not isinstance(identifier, str) or not isinstance(key, str) or said.get("model", model) != model:
        return None
    name = key.removeprefix(f"{model}.")
    type_ = str(said.get("dataType", ""))
    options = said.get("picklistOptions")
    open_ = said.get("isAllowedCustomOption") is True
    choices = tuple(each for each in options if isinstance(each, str)) if isinstance(options, list) else ()
    return FieldFacts(
        name=identifier if name in taken or not name else name,
        label=str(said.get("name") or ""),
        kind=TYPES.get(type_, "unknown"),
        also=(identifier,),
        choices=() if open_ else choices,
        said=type_,
    )

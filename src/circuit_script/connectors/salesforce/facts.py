"""What an org says of an object's fields, for people who write against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_script.connectors.salesforce.described import MAX_FIELDS, UNREAD
from circuit_script.connectors.salesforce.names import NAME, Names
from circuit_script.connectors.salesforce.settings import FIELDS
from circuit_script.schemas.facts import FieldFacts, Kind

TYPES: Mapping[str, Kind] = {
    "string": "text", "textarea": "text", "encryptedstring": "text", "combobox": "text", "reference": "text",
    "id": "text", "time": "text", "email": "email", "phone": "phone", "url": "url", "double": "number",
    "percent": "number", "currency": "money", "int": "integer", "long": "integer", "boolean": "boolean", "date": "date",
    "datetime": "datetime", "picklist": "choice", "multipicklist": "choices",
}  # fmt: skip


def facts_of(said: Any, names: Names, object_: str) -> list[FieldFacts]:
    """The fields of a describe's answer; what is not as it should be is left out."""
    fields = said.get("fields") if isinstance(said, Mapping) else None
    found = (_facts(each, names, object_) for each in (fields if isinstance(fields, list) else [])[:MAX_FIELDS])
    return [each for each in found if each is not None and each.name != "id"]


def _facts(said: Any, names: Names, object_: str) -> FieldFacts | None:
    if not isinstance(said, Mapping) or not isinstance(name := said.get("name"), str) or not NAME.fullmatch(name):
        return None
    type_ = str(said.get("type"))
    if type_ in UNREAD or said.get("deprecatedAndHidden") is True:
        return None
    made = said.get("createable") is not False
    length, ours = said.get("length"), names.ours(object_, name)
    usual = FIELDS.get(names.sobject(object_), {}).get(ours) == name  # webhooks say it by our name, too
    return FieldFacts(
        name=ours,
        label=str(said.get("label") or ""),
        kind=TYPES.get(type_, "unknown"),
        also=() if usual else (name,),
        choices=_choices(said),
        required=made and said.get("nillable") is False and said.get("defaultedOnCreate") is not True,
        writable=made or said.get("updateable") is not False,
        length=length if isinstance(length, int) and not isinstance(length, bool) and length > 0 else None,
        spelled=True,  # an outbound message has texts only
        said=type_,
    )


def _choices(said: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of a picklist that takes no others, inactive ones, too: old records have them."""
    listed = said.get("picklistValues")
    if said.get("restrictedPicklist") is not True or not isinstance(listed, list):
        return ()
    values = (each.get("value") for each in listed if isinstance(each, Mapping))
    return tuple(each for each in values if isinstance(each, str))

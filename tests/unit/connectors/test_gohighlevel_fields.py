"""Which custom fields of GoHighLevel have a key that says one field only."""

from __future__ import annotations

from circuit_script.connectors.gohighlevel.fields import customs_of


def said(id_: str, key: str, model: str = "contact") -> dict[str, str]:
    return {"id": id_, "fieldKey": key, "dataType": "TEXT", "model": model}


def test_a_key_of_two_fields_and_one_that_is_no_name_of_a_field_is_no_twin() -> None:
    fields = [
        said("id1", "contact.score"),
        said("id2", "score"),
        said("id3", "contact.plan"),
        said("id4", "opportunity.plan", "opportunity"),
        said("id5", "contact."),
        said("id6", "contact.id3"),
        said("id7", "contact.email"),
        said("id3", "contact.plan"),
    ]
    customs = customs_of({"customFields": fields}, 0.0)
    assert customs.twins("contact") == {"id3": "plan"}
    assert customs.twins("opportunity") == {"id4": "plan"}
    assert customs.find("contact", "score") is not None

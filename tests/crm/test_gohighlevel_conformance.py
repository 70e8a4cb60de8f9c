import pytest

from circuit_script.connectors.connector import Later
from tests.crm.conformance import Conformance, deliver, effect_of
from tests.crm.gohighlevel_stage import staged


@pytest.fixture
async def crm():
    async with staged(reference=True) as made:
        await made.connector.get("acme", "Contact", ["0" * 20])  # custom fields are known from here on
        yield made


class TestGoHighLevel(Conformance):
    """What every CRM promises."""


async def test_a_token_that_is_good_for_nothing_leaves_the_write_for_later(crm):
    crm.connector._asking.api._credentials.next = None
    crm.vendor.tokens.revoke()
    (result,) = await deliver(crm, "insert", [effect_of(crm, "insert", {"fields": {"email": "a@example.com"}})])
    assert isinstance(result, Later)
    assert result.down

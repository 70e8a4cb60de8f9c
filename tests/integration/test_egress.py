"""What a handler declares as its egress is held on the road."""

from __future__ import annotations

from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import HandlerSpec, Outcome, Succeeded, Work
from tests.road import contact, open_road

REFUSED = "other.example is not in the egress list of the handler"


async def test_a_trigger_reaches_the_hosts_of_its_list_only(database: str) -> None:
    said: list[object] = []

    async def call(work: Work, broker: ExecutionBroker) -> Outcome:
        for verb, asked in (
            ("http", {"method": "GET", "url": "https://other.example/"}),
            ("request", {"method": "GET", "url": "https://other.example/"}),
            ("request", {"method": "GET", "url": "https://api.example.com/"}),
        ):
            answer = await broker.request(verb, asked)
            said.append(answer["refused"][0] if "refused" in answer else answer)
        return Succeeded(broker.usage)

    async with open_road(database) as road:
        routes = (("Contact", "afterInsert"),)
        await road.live(HandlerSpec("call", routes, egress=("api.example.com",)))
        await road.take_in(contact("c1"))
        worker = await road.start(call)
        await road.done()

    assert [work.egress for work in worker.children.works] == [("api.example.com",)]
    assert [str(each).removesuffix(".") for each in said[:2]] == [REFUSED, REFUSED]
    assert isinstance(said[2], dict)
    assert 0 < said[2]["seconds"] <= 30

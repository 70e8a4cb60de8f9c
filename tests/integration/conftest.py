import pytest

from circuit_script.execution.host import crew, run, zygote_link
from tests import servers
from tests.gateways import running
from tests.integration.courier_vendor import Office
from tests.road import open_road
from tests.zygotes import Nursery


@pytest.fixture(scope="session", autouse=True)
def nursery():
    """Whoever starts a pool in a test's own process gets its zygote without the second that imports take."""
    found = Nursery()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zygote_link, "subprocess", found)
        yield found
    found.close()


@pytest.fixture
async def office(database):
    async with open_road(database) as road:
        made = Office(road)
        await made.hold()
        yield made


@pytest.fixture(scope="module")
def module_database(embedded_server):
    name = embedded_server.create_database(servers.TEMPLATE)
    yield embedded_server.url(name)
    embedded_server.drop_database(name)


@pytest.fixture(scope="module")
def port(module_database, tmp_path_factory):
    with running(module_database, tmp_path_factory.mktemp("app")) as port:
        yield port


@pytest.fixture
def target(empty_database):
    """A database in which nothing is, for a copy to be restored into."""
    return empty_database


@pytest.fixture
def file(tmp_path):
    """Where a copy is put."""
    return tmp_path / "copy.backup"


@pytest.fixture
def time_to_speak(monkeypatch):
    """On a busy machine a child over its limits may be killed before it has said what it did: here it has a second."""
    monkeypatch.setattr(run, "KILL_AFTER", 1.0)
    monkeypatch.setattr(crew, "KILL_AFTER", 1.0)

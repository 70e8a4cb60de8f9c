import pytest

from tests import servers
from tests.gateways import running


@pytest.fixture(scope="module")
def module_database(embedded_server):
    name = embedded_server.create_database(servers.TEMPLATE)
    yield embedded_server.url(name)
    embedded_server.drop_database(name)


@pytest.fixture(scope="module")
def port(module_database, tmp_path_factory):
    with running(module_database, tmp_path_factory.mktemp("app")) as port:
        yield port

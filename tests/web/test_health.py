from controlplane.localcloud.servers.process import free_port
from controlplane.store.registry import Registry
from tests.web.site import Site


def test_a_current_registry_is_ready(site: Site) -> None:
    assert site.client.get("/readyz").json == {"status": "ready"}


def test_an_old_schema_is_not_ready(empty_database_url: str) -> None:
    with Registry(empty_database_url) as registry:
        answer = Site(registry).client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["error"]["code"] == "schema_outdated"
    assert "controlplane db upgrade" in answer.json["error"]["message"]


def test_a_registry_that_is_down_leaves_the_process_healthy() -> None:
    with Registry(f"postgresql://127.0.0.1:{free_port()}/x", wait=0.2) as registry:
        client = Site(registry).client
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").json == {"status": "ok"}

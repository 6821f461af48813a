"""One Brain for the whole session, with a mock provider behind it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.conftest import free_port
from tests.e2e.brain import PROVIDER_KEY, Brain, mock_provider
from tests.e2e.leaks import leaked

HASTY = {"connect": 1, "first_token": 1.5, "idle": 1.5, "total": 60}


@pytest.fixture(scope="session")
def work_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="brain-e2e-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def provider(work_folder: Path) -> Iterator[str]:
    with mock_provider(work_folder, key=PROVIDER_KEY) as url:
        yield url


@pytest.fixture
def calls(provider: str):
    """How often the provider was called for a message, and how many of its streams are open."""

    class Calls:
        def of(self, message: str) -> int:
            return int(self.stats()["by_user"].get(message, 0))

        def stats(self) -> dict:
            return httpx.get(provider.removesuffix("/v1") + "/stats").json()

    return Calls()


@pytest.fixture(scope="session")
def config(work_folder: Path, provider: str) -> Path:
    models = [
        {"id": "small", "upstream": "mock,n=8", "price_in": 1.0, "price_out": 2.0, "context_tokens": 4096},
        {"id": "tooled", "upstream": "mock,n=2,itl=2,tools=1", "capabilities": ["chat", "tools"]},
        {"id": "mock*"},
    ]
    mock = {"base_url": provider, "key": "${MOCK_KEY}"}
    providers = [
        {"name": "mock", **mock, "timeouts": HASTY, "retries": 2, "models": models},
        # Half a second a turn, and few at once.
        {"name": "few", **mock, "max_connections": 4, "models": [{"id": "narrow", "upstream": "mock,n=10,itl=50"}]},
    ]
    path = work_folder / "providers.yaml"
    path.write_text(yaml.safe_dump({"providers": providers, "routing": {"default": "small", "fallback": ["scripted"]}}))
    return path


@pytest.fixture(scope="session")
def brain(work_folder: Path, config: Path) -> Iterator[Brain]:
    arguments = ["--config", str(config)]
    environment = {"MOCK_KEY": PROVIDER_KEY, "HOME": str(work_folder), "BRAIN_OUTGOING_ALLOWED": "127.0.0.1"}
    brain = Brain(work_folder / "data", free_port(), arguments, environment).start()
    yield brain
    code = brain.stop()
    assert code == 0, brain.log.read_text()[-3000:]
    assert brain.processes() == []
    assert leaked(brain) == []


@pytest.fixture
def other_tenant(brain: Brain) -> httpx.Client:
    """A client with the key of another tenant."""
    from storage.access import key_hash

    key = "brain_" + "z" * 43
    brain.sql("INSERT INTO brain.tenants (id, name) VALUES ('ten_0', 'other') ON CONFLICT DO NOTHING")
    brain.sql(
        "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES ('ten_0', 'key_0', 'k', %s, 'admin')"
        " ON CONFLICT DO NOTHING",
        key_hash(key),
    )
    return brain.client(key)

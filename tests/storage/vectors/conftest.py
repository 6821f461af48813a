import pytest

from tests.storage.vectors.given import BACKENDS, SPACE, running


@pytest.fixture(params=BACKENDS)
async def backend(request, tmp_path):
    async with running(request.param, tmp_path / "vectors") as backend:
        yield backend


@pytest.fixture
def vectors(backend):
    return backend.open(SPACE)

"""`brain up` that is told something wrong: it says so in one line, and leaves nothing behind. No Brain runs for it."""

import pytest

from tests.conftest import free_port, wait_until
from tests.e2e.brain import Brain, run


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("up")


@pytest.mark.parametrize(
    ("arguments", "environment", "word"),
    [
        (["--data", "/proc/nowhere"], {}, "--data"),
        (["--provider-url", "ftp://x/v1", "--model", "m"], {}, "provider"),
        (["--provider-url", "http://127.0.0.1:1/v1"], {}, "--model"),
        (["--config", "/no/such/file.yaml"], {}, "/no/such/file.yaml"),
        (["--host", "0.0.0.0"], {"BRAIN_API_KEY": "changeme"}, "BRAIN_API_KEY"),
        ([], {"BRAIN_DATABASE_URL": "postgresql://nobody:x@127.0.0.1:1/none"}, "BRAIN_DATABASE_URL"),
        ([], {"BRAIN_REDIS_URL": "redis://127.0.0.1:1/0"}, "BRAIN_REDIS_URL"),
        ([], {"BRAIN_PORT": "many"}, "BRAIN_PORT"),
    ],
)
def test_a_wrong_setting_is_one_line(folder, arguments, environment, word):
    where = [] if "--data" in arguments else ["--data", folder / "data"]
    done = run("up", "--port", free_port(), *where, *arguments, **environment)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert word in done.stderr and "Traceback" not in done.stderr
    assert wait_until(lambda: Brain(folder / "data", 0, []).processes() == [], 20)


def test_a_configuration_that_holds_a_literal_key_is_refused(folder):
    path = folder / "c.yaml"
    path.write_text("providers: [{name: a, base_url: 'http://x/v1', key: sk-very-secret, models: [{id: m}]}]")
    done = run("up", "--data", folder / "data", "--config", path)
    assert done.returncode == 2 and "sk-very-secret" not in done.stderr + done.stdout and "${NAME}" in done.stderr

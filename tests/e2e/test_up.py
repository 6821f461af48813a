"""`brain up` itself: its end, its second start, and a neighbour."""

import shutil
import tempfile
from pathlib import Path

import psycopg
import pytest

from tests.conftest import free_port, make_database, wait_until
from tests.e2e.brain import PROVIDER_KEY, Brain, check_ids, resumed, run, text_of
from tests.servers.given import servers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="brain-up-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_a_killed_brain_finds_everything_again_beside_a_living_one(brain, folder, config):
    """Two side by side; then `kill -9`, with all of its processes still running, and a second start."""
    second = Brain(folder / "data", free_port(), ["--config", str(config)], {"MOCK_KEY": PROVIDER_KEY}).start()
    try:
        assert second.tenant != brain.tenant
        assert (
            second.http.get("/api/v1/conversations", headers={"Authorization": f"Bearer {brain.key}"}).status_code
            == 401
        )
        conversation = second.conversation(title="kept")
        assert second.send(conversation, "first", model="small").status_code == 200
        stream = second.stream(conversation, "in mid-stream", model="mock,n=400,itl=50").deltas(3)
        queued = second.stream(conversation, "queued", model="small")
        turn, waiting = stream.turn, queued.turn
        second.kill()
        assert second.processes("postgres") and second.processes("raylet")
        key = second.key
        second.start()
        assert second.key == key
        assert second.http.get(f"/api/v1/conversations/{conversation}").json()["title"] == "kept"
        ended = second.ended(turn, 90)
        assert ended["status"] == "completed"
        assert second.ended(waiting, 60)["status"] == "completed"
        assert len(second.check(conversation)) == 6
        again = second.events(turn).finish().events
        check_ids(again[1:])
        assert text_of(again) == again[-1]["message"]["content"]
    finally:
        code = second.stop()
    assert code == 0
    assert second.processes() == []
    assert brain.http.get("/health/ready").status_code == 200


@pytest.fixture
def outside(postgres_folder, redis_url):
    """A database and a Redis that are not the Brain's: URLs of the owner and of a login in `brain_app`."""
    if given := servers():
        return given.settings(given.make_database())
    url = make_database(postgres_folder)
    with psycopg.connect(f"postgresql://postgres@/postgres?host={postgres_folder}", autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS service")
        connection.execute("CREATE ROLE service LOGIN PASSWORD 'y' IN ROLE brain_app")
    return {
        "BRAIN_DATABASE_ADMIN_URL": url,
        "BRAIN_DATABASE_URL": url.replace("owner:x@", "service:y@"),
        "BRAIN_REDIS_URL": redis_url,
    }


SLOW = "mock,n=100,itl=500"


def begin_a_summary(brain, calls):
    """Have the slow model begin to write one."""
    rules = f"/api/v1/tenants/{brain.tenant}/model-settings"
    assert brain.http.put(rules, json={"summary_model": SLOW}).status_code == 200
    conversation = brain.conversation()

    def begun():
        said = f"And another? {'the shop has many lamps of all kinds ' * 60}"
        assert brain.send(conversation, said, model="small").status_code == 200
        return any("Notes so far" in asked for asked in calls.stats()["by_user"])

    wait_until(begun, 60, what="a summary")


def test_ctrl_c_hands_running_turns_over_also_on_outside_servers(folder, config, outside, calls):
    environment = {"MOCK_KEY": PROVIDER_KEY, **outside}
    brain = Brain(folder / "data", free_port(), ["--config", str(config)], environment).start()
    assert brain.processes("postgres") == brain.processes("redis-server") == []
    begin_a_summary(brain, calls)
    conversation = brain.conversation()
    stream = brain.stream(conversation, "handed over", model="mock,n=600,itl=50").deltas(3)
    turn = stream.turn
    assert brain.stop(20) == 0
    assert brain.processes() == []
    brain.start()
    try:
        told = "SELECT model, prompt_tokens > 500, completion_tokens > 0 FROM brain.usage WHERE why = 'summary'"
        with psycopg.connect(outside["BRAIN_DATABASE_ADMIN_URL"]) as connection:
            assert connection.execute(told).fetchall() == [(SLOW, True, True)], "what the end cut off is charged for"
        assert brain.ended(turn, 90)["status"] == "completed"
        assert len(brain.check(conversation)) == 2
        events = resumed(brain, brain.events(turn))
        assert events[-1]["type"] == "turn.completed"
    finally:
        assert brain.stop() == 0


def test_a_taken_port_is_one_line(brain, folder):
    done = run("up", "--data", folder / "data", "--port", brain.port)
    assert done.returncode == 2
    assert str(brain.port) in done.stderr and "--port" in done.stderr and "Traceback" not in done.stderr


def test_a_held_data_folder_is_one_line(brain):
    done = run("up", "--data", brain.data, "--port", free_port())
    assert done.returncode == 2 and str(brain.data) in done.stderr and "Traceback" not in done.stderr


def test_nothing_listens_beyond_loopback(brain):
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in [*brain.processes()]
        for connection in process.net_connections("tcp")
        if connection.status == "LISTEN"
    }
    assert len(listening) > 10
    beyond = {address for address in listening if address[0] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")}
    assert beyond == set()


def test_the_dashboard_wants_its_token(brain):
    import httpx

    from serve_app.embedded.folder import DataFolder

    data = DataFolder(brain.data)
    url = f"http://127.0.0.1:{data.recall('ports')['single']['dashboard']}/api/serve/applications/"
    assert httpx.get(url).status_code in (401, 403)
    token = (data.secrets / "ray-token").read_text()
    shown = httpx.get(url, headers={"Authorization": f"Bearer {token}"})
    assert shown.status_code == 200 and "ConversationHost" in shown.text
    assert brain.key not in shown.text and "postgresql://" not in shown.text


def test_metrics_cover_every_replica_and_health_tells_the_parts(brain):
    brain.send(brain.conversation(), "counted", model="small")

    def told():
        text = brain.http.get("/metrics").text
        parts = [f'deployment="{name}"' for name in ("Ingress", "ConversationHost", "HostedLLM")]
        return all(part in text for part in (*parts, "brain_conversations_hot{", "brain_tokens_total{"))

    assert wait_until(told, 20)
    health = brain.http.get("/health/detailed").json()
    assert {"postgres", "redis", "conversation_host", "hosted_llm", "embedder"} <= set(
        str(health).replace("'", " ").split()
    )
    assert brain.http.get("/health/live").status_code == brain.http.get("/health/ready").status_code == 200
    assert "/api/v1/conversations" in brain.http.get("/openapi.json").json()["paths"]

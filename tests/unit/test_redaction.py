"""No secret in a log: canaries through every way that words can take out of a process."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.acting import TENANT, acting_for
from serve_app.ingress import logs
from serve_app.redaction import MASK, Known, secrets_of
from serve_app.settings import Settings

ROOT = Path(__file__).parents[2]
CANARIES = {
    "our key": "brain_" + "C4nary" * 7 + "x",
    "provider key": "sk-proj-C4naryC4naryC4nary",
    "JSON web token": "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJDNG5hcnkifQ.C4narysignature",
    "authorization": "Authorization: Bearer C4nary-opaque-token",
    "basic": "authorization: Basic QzRuYXJ5OkM0bmFyeQ==",
    "header of a mapping": "{'Authorization': 'C4nary-raw-value'}",
    "JSON header": '{"x-api-key": "C4nary-raw-value"}',
    "database": "postgresql://brain:C4naryword@db.internal:5432/brain",
    "redis": "redis://:C4naryword@127.0.0.1:6379/0",
    "form": "grant_type=client_credentials&client_secret=C4narysecret&scope=x",
    "known": "just some words C4nary",
    "known with a quote": 'C4nary "quoted" \\ value',
}
SIGNS = ("C4nary", "QzRuYXJ5", "eyJzdWIi")

SCRIPT = """
import asyncio, logging, sys, threading, warnings, gc
from serve_app.ingress import logs
from serve_app.redaction import KNOWN
import tests.unit.test_redaction as t

KNOWN.learn([t.CANARIES["known"], t.CANARIES["known with a quote"]])
logs.configure_logging("DEBUG")
handler = logging.StreamHandler(sys.stderr)
logging.getLogger().addHandler(handler)
logging.getLogger().setLevel("DEBUG")
said = 0

class Holder:
    def __init__(self, canary): self.canary = canary
    def __repr__(self): return f"Holder({self.canary})"

for what, canary in t.CANARIES.items():
    for name in ("brain.ingress", "brain.host", "ray.serve", "uvicorn.error", "asyncio", "py.warnings", None):
        log = logging.getLogger(name)
        log.info("said %s", canary)
        log.warning(canary.replace("%", "%%"))
        log.error("an object: %r", Holder(canary), extra={"conversation_id": canary})
        log.info("wrong %d", canary)
        try:
            try:
                raise ValueError(canary)
            except ValueError as cause:
                raise RuntimeError("about " + canary) from cause
        except RuntimeError:
            log.exception("failed with %s", {"key": canary})
            log.warning("and its trace", exc_info=True, stack_info=True)
    logs.write("audit", request_id="r", provider=canary, nested={"a": [canary]})
    warnings.warn(canary, stacklevel=1)
    thread = threading.Thread(target=lambda: (_ for _ in ()).throw(KeyError(canary)))
    thread.start(); thread.join()
    class Bad:
        def __del__(self): raise OSError(canary)
    Bad(); gc.collect()
    async def lost():
        async def fail(): raise LookupError(canary)
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()
    asyncio.run(lost())
print("DONE", file=sys.stderr)
raise SystemError(t.CANARIES["provider key"])
"""


@pytest.fixture
def shown(capfd: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    factory, hook = logging.getLogRecordFactory(), sys.excepthook
    yield capfd
    logging.setLogRecordFactory(factory)
    sys.excepthook = hook


def test_no_canary_leaves_a_process_by_any_logger_warning_or_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    told = done.stdout + done.stderr
    assert "DONE" in told and done.returncode == 1, told[-2000:]
    for sign in SIGNS:
        line = next((line for line in told.splitlines() if sign in line), None)
        assert line is None, line
    for words in (
        "said",
        "failed with",
        "Holder(",
        "RuntimeError",
        "KeyError",
        "OSError",
        "LookupError",
        "SystemError",
    ):
        assert words in told, f"{words!r} was never said: the test has looked at nothing"
    assert told.count(MASK) > 20 * len(CANARIES)


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES)
def test_what_stands_around_a_secret_stays(canary: str) -> None:
    known = Known()
    known.learn([CANARIES["known"], CANARIES["known with a quote"]])
    masked = known.masked(f"before {canary} after")
    assert masked.startswith("before ") and masked.endswith(" after") and MASK in masked
    assert not any(sign in masked for sign in SIGNS)
    assert known.masked(masked) == masked


def test_ordinary_lines_are_left_as_they_are() -> None:
    for line in (
        '{"at":1.5,"event":"request","request_id":"req_0192f0c1aa0070008000aabbccddeeff","route":"/api/v1/turns/{id}"}',
        "brain_conversations_hot_bytes 5.0",
        "http://127.0.0.1:8000/v1 answers in 12 ms",
        "prompt_tokens=5 completion_tokens=7 first_token_ms=3",
        "taking a conversation up again: conv_0192f0c1aa0070008000aabbccddeeff",
        "the key of provider 'acme' is not readable from the environment variable ACME_KEY",
        "a risky task asks for basics",
    ):
        assert Known().masked(line) == line


@given(st.text(min_size=6, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_is_found_wherever_it_stands(secret: str, before: str, after: str) -> None:
    known = Known()
    known.learn([secret])
    masked = known.masked(before + secret + after)
    assert masked == known.masked(masked) or secret in MASK * 3
    assert secret not in masked.replace(MASK, "\0") or secret in before + after or set(secret) <= {"*"}


def test_the_process_knows_its_own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_MASTER_KEY", f"{'a' * 64},{'b' * 64}")
    monkeypatch.setenv("BRAIN_DATABASE_URL", "postgresql://brain:wordofthedb@h/brain")
    monkeypatch.setenv("BRAIN_API_KEY", "anykeyatall1")
    found = secrets_of(Settings())
    assert {"a" * 64, "b" * 64, "wordofthedb", "anykeyatall1"} <= set(found)


def test_a_line_says_for_which_tenant(shown: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("INFO")
    log = logging.getLogger("brain.test")
    with acting_for("ten_a"):
        log.info("mine", extra={"turn_id": "turn_1"})
    log.info("nobody's")
    log.info("named", extra={"tenant": "ten_b"})
    assert TENANT.get() is None
    mine, nobodys, named = shown.readouterr().err.strip().splitlines()[-3:]
    assert '"tenant":"ten_a"' in mine and '"turn_id":"turn_1"' in mine
    assert "tenant" not in nobodys.replace("nobody's", "") and '"tenant":"ten_b"' in named

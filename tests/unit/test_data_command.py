"""`brain data` and `brain verify-receipt`, on a service in this process."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.embedded.refusal import Refusal
from storage.receipts import Receipts
from tests.unit.test_ingress_privacy import Service, service  # noqa: F401

RECEIPTS = Receipts((b"s" * 32,))


def run(*args: str) -> Any:
    return CliRunner().invoke(app, list(args))


@pytest.fixture
def receipt(tmp_path: Path) -> Path:
    file = tmp_path / "receipt.json"
    body = {
        "object": "erasure_receipt",
        "status": "completed",
        "subject": {"object": "user", "id": "ann"},
        "tenant_id": "t",
    }
    file.write_text(json.dumps(RECEIPTS.signed(body)))
    (tmp_path / "keys.json").write_text(json.dumps({"keys": RECEIPTS.keys}))
    return file


def test_a_receipt_is_checked_by_a_kept_copy_of_the_keys(receipt: Path) -> None:
    keys = str(receipt.parent / "keys.json")
    told = run("verify-receipt", str(receipt), "--keys", keys)
    assert told.exit_code == 0 and told.output.startswith("valid: completed, of user ann")
    receipt.write_text(receipt.read_text().replace("ann", "bob"))
    wrong = run("verify-receipt", str(receipt), "--keys", keys)
    assert isinstance(wrong.exception, Refusal) and "changed" in str(wrong.exception)
    (receipt.parent / "keys.json").write_text('{"keys": []}')
    none = run("verify-receipt", str(receipt), "--keys", keys)
    assert isinstance(none.exception, Refusal) and "not among" in str(none.exception)
    for file in ("nothing.json", "keys.txt"):
        (receipt.parent / "keys.txt").write_text("no json")
        assert isinstance(run("verify-receipt", str(receipt.parent / file), "--keys", keys).exception, Refusal)


def test_who_is_meant_must_be_said() -> None:
    for args in ((), ("--user", "a", "--tenant", "b")):
        told = run("data", "export", *args, "--api-key", "k" * 40)
        assert isinstance(told.exception, Refusal) and "--user" in str(told.exception)


async def test_a_user_is_exported_erased_and_the_receipt_checked(service: Service, tmp_path: Path) -> None:  # noqa: F811
    await service.talk("ann/1", "the blue door")
    key = service.owner["authorization"].removeprefix("Bearer ")
    there = ("--url", service.world.url, "--api-key", key)
    out, receipt = tmp_path / "ann.jsonl", tmp_path / "receipt.json"
    done = await asyncio.to_thread(run, "data", "export", "--user", "ann/1", "--out", str(out), *there)
    assert done.exit_code == 0, done.output
    assert "the blue door" in out.read_text() and len(out.read_text().splitlines()) == 5
    kept = await asyncio.to_thread(run, "data", "erase", "--user", "ann/1", *there)
    assert kept.exit_code != 0, "nobody said yes"
    erasing = asyncio.create_task(
        asyncio.to_thread(run, "data", "erase", "--user", "ann/1", "--yes", "--receipt", str(receipt), *there)
    )
    while not erasing.done():
        await asyncio.to_thread(service.indexed)
        await asyncio.wait([erasing], timeout=0.1)
    assert erasing.result().exit_code == 0, erasing.result().output
    assert json.loads(receipt.read_text())["removed"]["messages"] == 2
    checked = await asyncio.to_thread(run, "verify-receipt", str(receipt), "--url", service.world.url)
    assert checked.exit_code == 0 and "of user ann/1" in checked.output, checked.output

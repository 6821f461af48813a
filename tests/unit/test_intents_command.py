"""`brain intents` against a real ingress."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from serve_app.cli import app
from serve_app.cli.intents_file import read_intents
from serve_app.embedded.refusal import Refusal
from tests.unit.intents_world import PARCEL, REFUND
from tests.unit.test_ingress_intents import Brain, brain  # noqa: F401  (a fixture)

MORE = [f"{text} now" for text in REFUND], [f"{text} now" for text in PARCEL]
FILE = {
    "refund": [*REFUND, *MORE[0]],
    "parcel": {
        "description": "asks where it is",
        "examples": [*PARCEL, *MORE[1]],
        "slots": [{"name": "n", "kind": "order_number"}],
    },
}


async def run(brain: Brain, *arguments: str, key: str | None = None) -> Result:  # noqa: F811
    environment = {"BRAIN_URL": brain.world.url, "BRAIN_API_KEY": key or brain.admin["authorization"].split()[1]}
    return await asyncio.to_thread(CliRunner().invoke, app, ["intents", *arguments], env=environment)


async def test_intents_are_trained_from_a_file_listed_and_rolled_back(brain: Brain, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "intents.yaml"
    file.write_text(yaml.safe_dump(FILE))
    done = await run(brain, "train", str(file))
    assert done.exit_code == 0, (done.output, done.exception)
    version = int(done.stdout.split()[1])
    assert f"version {version} is in use: 2 intents, 20 examples" in done.stdout and "%" in done.stdout
    await brain.understanders.version_everywhere(brain.tenant, version)

    found = await run(brain, "classify", "give me my money back", "where is my parcel A-1234")
    assert found.stdout.splitlines()[0].startswith("give me my money back: refund (refund ")
    assert "n = A-1234" in found.stdout

    listed = await run(brain, "list")
    for words in ("refund", "asks where it is", f"* version {version}: 2 intents", "version 0, the shared set"):
        assert words in listed.stdout
    told = json.loads((await run(brain, "list", "--json")).stdout)
    assert {one["name"] for one in told["intents"]} == {"refund", "parcel"} and told["head"]["version"] == version

    file.write_text(yaml.safe_dump({**FILE, "refund": [*REFUND, *MORE[0], "repay me"]}))
    again = await run(brain, "train", str(file), "--quick")
    assert "2 intents, 21 examples" in again.stdout, "the same intents, replaced"
    back = await run(brain, "rollback", str(version))
    assert back.stdout == f"version {version} is in use\n"
    assert (await run(brain, "rollback", "0")).stdout == "the shared set is in use\n"


async def test_what_is_wrong_is_said_in_one_line(brain: Brain, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "intents.yaml"

    async def refused(*arguments: str, key: str | None = None) -> str:
        done = await run(brain, *arguments, key=key)
        assert isinstance(done.exception, Refusal), (done.output, done.exception)
        assert "\n" not in str(done.exception)
        return str(done.exception)

    file.write_text(yaml.safe_dump({"refund": REFUND}))
    assert "'refund'" in await refused("train", str(file))
    file.write_text(yaml.safe_dump({"refund": REFUND, "parcel": [REFUND[0].upper(), *PARCEL]}))
    assert "'REFUND MY ORDER'" in await refused("train", str(file))
    file.write_text(yaml.safe_dump({"refund": {"slots": [{"name": "x", "kind": "nonsense"}]}}))
    assert "refund: slots.0.kind" in await refused("train", str(file))
    assert "there is no version 99" in await refused("rollback", "99")
    assert "does not accept this API key" in await refused("list", key="x" * 40)
    assert "administrator" in await refused("rollback", "0", key=brain.member["authorization"].split()[1])
    assert "no such tenant" in await refused("list", "--tenant", "ten_x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no intents"),
        ("- a", "holds no intents"),
        ("a: [", "is not valid YAML"),
        ("a: 1", "a must be a list of examples"),
        ("a: {exampels: []}", "unknown field 'exampels'"),
        ("a: {examples: x}", "the examples of a must be a list"),
        ("a: [fine, no]", "example 2 of a is False, not a text"),
    ],
)
def test_a_file_that_is_wrong_is_told(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "intents.yaml"
    file.write_text(text)
    with pytest.raises(Refusal, match=words):
        read_intents(file)
    with pytest.raises(Refusal, match="cannot be read"):
        read_intents(tmp_path / "absent.yaml")


def test_help_names_every_command() -> None:
    found = CliRunner().invoke(app, ["intents", "--help"])
    assert all(name in found.stdout for name in ("train", "list", "classify", "rollback"))

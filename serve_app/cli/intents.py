"""`brain intents`: a tenant's intents on a running service."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from serve_app.cli.calling import Call, Json, all_of, run
from serve_app.cli.intents_file import read_intents
from serve_app.cli.options import Data
from serve_app.cli.progress import shown
from serve_app.cli.running import ApiKey, Url
from serve_app.embedded.refusal import Refusal

app = typer.Typer(help="A tenant's intents: what messages are told apart by.", no_args_is_help=True)
EVERY = 0.3  # seconds between looks at a training
Tenant = Annotated[str | None, typer.Option(metavar="ID", help="Another tenant, with the operator's key.")]


@app.command()
def train(
    file: Annotated[
        Path, typer.Argument(help="YAML: under each name its examples, or `description`, `examples`, `slots` …")
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Only the first head, which takes seconds.")] = False,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Tune layers of the embedder's model too, which takes minutes.")
    ] = False,
    tenant: Tenant = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Define the intents of FILE, and train a head for all that the tenant has defined.

    Intents of the same name are replaced, others stay. Messages go by the new head as soon as it is there.
    """
    if quick and tuned:
        raise typer.BadParameter("--quick and --tuned exclude each other")
    intents = read_intents(file)
    effort = "first" if quick else "tuned" if tuned else "best"

    async def work(call: Call) -> dict[str, Any]:
        with shown() as tell:
            await define(call, intents, tell)
            made = await call("POST", "/intents/train", json={"effort": effort})
            while made["status"] in ("queued", "running"):
                await asyncio.sleep(EVERY)
                made = await call("GET", f"/intents/training/{made['id']}")
                tell(made["phase"], round(made["progress"] * 100), 100)
        return made

    done = run(work, url, api_key, data, tenant)
    if done["status"] == "failed":
        raise Refusal(str(done["error"]["message"]))
    typer.echo(f"version {done['version']} is in use: {_told(done['metrics'])}")


@app.command("list")
def list_command(
    tenant: Tenant = None, as_json: Json = False, url: Url = None, api_key: ApiKey = None, data: Data = None
) -> None:
    """The tenant's intents, and the versions of its head."""

    async def work(call: Call) -> dict[str, Any]:
        head = (await call("GET", "/intents?limit=1"))["head"]
        return {
            "intents": await all_of(call, "/intents"),
            "head": head,
            "versions": (await call("GET", "/intents/versions"))["data"],
        }

    found = run(work, url, api_key, data, tenant)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("intent", "examples", "description")
    for one in sorted(found["intents"], key=lambda one: str(one["name"])):
        table.add_row(one["name"], str(len(one["examples"])), one["description"])
    console = Console()
    console.print(table if found["intents"] else "No intents are defined: the shared set is used.")
    for version in found["versions"]:
        mark = "*" if version["active"] else " "
        name = f"version {version['version']}" if version["version"] else "version 0, the shared set"
        console.print(f"{mark} {name}: {_told(version['metrics'])}".rstrip(": "), markup=False, highlight=False)
    if found["head"] and found["head"]["problem"]:
        console.print(found["head"]["problem"], style="yellow", markup=False)


@app.command()
def classify(
    text: Annotated[list[str], typer.Argument(help="What a user might say; several are told one by one.")],
    tenant: Tenant = None,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """What texts ask for."""

    async def work(call: Call) -> dict[str, Any]:
        return await call("POST", "/intents/classify", json={"texts": text})

    found = run(work, url, api_key, data, tenant)["data"]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for asked, one in zip(text, found, strict=True):
        ranked = ", ".join(f"{other['name']} {other['confidence']:.0%}" for other in one["ranked"][:3])
        meant = "out of scope" if one["out_of_scope"] else one["intent"]["name"]
        slots = "".join(f", {entity['slot']} = {entity['value']}" for entity in one["entities"])
        typer.echo(f"{asked}: {meant} ({ranked}){slots}")
        if one["clarification"]:
            typer.echo(f"  {one['clarification']['question']}")


@app.command()
def rollback(
    version: Annotated[int, typer.Argument(min=0, help="The version to use; 0 is the shared set.")],
    tenant: Tenant = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Use another version of the tenant's head, an older or a newer one."""

    async def work(call: Call) -> dict[str, Any]:
        return await call("POST", "/intents/rollback", json={"version": version})

    run(work, url, api_key, data, tenant)
    typer.echo(f"version {version} is in use" if version else "the shared set is in use")


async def define(call: Call, intents: list[dict[str, Any]], tell: Callable[[str, int, int], None]) -> None:
    known = {one["name"]: one["id"] for one in await all_of(call, "/intents")}
    for done, one in enumerate(intents):
        tell("defining", done, len(intents))
        try:
            if one["name"] in known:
                await call("PUT", f"/intents/{known[one['name']]}", json=one)
            else:
                await call("POST", "/intents", json=one)
        except Refusal as refusal:
            raise Refusal(f"{one['name']}: {refusal}") from None


def _told(metrics: dict[str, Any]) -> str:
    """What is known of a head, in a line."""
    if not metrics:
        return ""
    held_out = metrics.get("held_out") or {}
    measured = held_out.get(held_out.get("kept", "")) or held_out
    accuracy = measured.get("accuracy") if isinstance(measured, dict) else None
    counts = f"{metrics.get('intents')} intents, {metrics.get('examples')} examples"
    return counts if accuracy is None else f"{counts}, {accuracy:.1%} right on examples that it had not seen"

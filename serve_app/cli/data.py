"""`brain data`: all that is kept of a user or a tenant, exported or erased; and receipts, checked."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import aiohttp
import typer

from serve_app.cli.chat_client import Client
from serve_app.cli.options import Data
from serve_app.cli.progress import shown
from serve_app.cli.running import ApiKey, Url, service_of
from serve_app.embedded.refusal import Refusal

app = typer.Typer(help="All that is kept of a user or of a tenant.", no_args_is_help=True)
User = Annotated[str | None, typer.Option(metavar="ID", help="A registered user, or one that conversations name.")]
Tenant = Annotated[str | None, typer.Option(metavar="ID", help="A tenant instead: all that is its.")]
AGAIN = 1.0  # seconds between two calls that go on with an erasure


@app.command()
def export(
    user: User = None,
    tenant: Tenant = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write; standard output if none.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Write all that is kept, as JSON lines."""

    async def work(client: Client) -> int:
        response = await client.download("POST", f"{_path(user, tenant)}/export")
        lines = 0
        with out.open("wb") if out is not None else nullcontext(sys.stdout.buffer) as file, shown() as tell:
            async for chunk in response.content.iter_chunked(1 << 16):
                file.write(chunk)
                lines += chunk.count(b"\n")
                tell(f"{lines:,} lines", 0, 0)
        return lines

    lines = _run(work, url, api_key, data)
    typer.echo(f"{lines:,} lines", err=True)


@app.command()
def erase(
    user: User = None,
    tenant: Tenant = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    receipt: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to keep the receipt.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Erase it all, and print the signed receipt. What was stopped half-way is gone on with by the same command."""
    path, what = _path(user, tenant), f"the user {user!r}" if user is not None else f"the tenant {tenant}"
    if not yes:
        typer.confirm(f"Erase {what} with all conversations? It cannot be undone.", abort=True)

    async def work(client: Client) -> dict[str, Any]:
        told: dict[str, Any] = {"removed": {}}
        with shown() as tell:
            while True:
                try:
                    told = await client.call("POST", f"{path}/erase")
                except Refusal:
                    if told["removed"].get("tenants"):  # the key went with its tenant: the operator may ask on
                        return told
                    raise
                if told["status"] == "completed":
                    return told
                gone = told["removed"].get("conversations", 0)
                tell(f"{gone:,} conversations erased, on their way: {', '.join(told['pending'])}", 0, 0)
                await asyncio.sleep(AGAIN)

    signed = json.dumps(_run(work, url, api_key, data), indent=2, ensure_ascii=False)
    if receipt is not None:
        receipt.write_text(signed + "\n", encoding="utf-8")
    typer.echo(signed)


def verify_receipt(
    file: Annotated[Path, typer.Argument(help="The receipt, as JSON.")],
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A kept copy of /.well-known/receipts.json; else the service's.")
    ] = None,
    url: Url = None,
    data: Data = None,
) -> None:
    """Check that a receipt of an erasure was signed by the service, and not changed."""
    from storage.receipts import BadReceipt, verify

    told = _json(file)
    published = _json(keys) if keys is not None else asyncio.run(_published(service_of(url, "none", data)[0]))
    try:
        kid = verify(told, published.get("keys", ()))
    except BadReceipt as error:
        raise Refusal(f"{file} is no valid receipt: {error}") from None
    subject = told.get("subject", {})
    typer.echo(
        f"valid: {told.get('status')}, of {subject.get('object')} {subject.get('id')} in {told.get('tenant_id')},"
        f" {told.get('completed_at') or 'not completed'}; signed by {kid}"
    )


def _path(user: str | None, tenant: str | None) -> str:
    if (user is None) == (tenant is None):
        raise Refusal("name either a user with --user or a tenant with --tenant")
    return f"/users/{quote(user, safe='')}" if user is not None else f"/admin/tenants/{quote(str(tenant), safe='')}"


def _run(work: Callable[[Client], Awaitable[Any]], url: str | None, api_key: str | None, data: Data) -> Any:
    client = Client(*service_of(url, api_key, data), tell=lambda words: typer.echo(words, err=True))

    async def main() -> Any:
        await client.open()
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(main())


async def _published(url: str) -> dict[str, Any]:
    address = f"{url.rstrip('/')}/.well-known/receipts.json"
    try:
        async with aiohttp.ClientSession() as session, session.get(address, allow_redirects=False) as response:
            found = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Refusal(f"{address} cannot be read ({type(error).__name__}): name a kept copy with --keys") from None
    if not isinstance(found, dict):
        raise Refusal(f"{address} holds no keys: name a kept copy with --keys")
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refusal(f"{file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise Refusal(f"{file} holds no JSON object")
    return found

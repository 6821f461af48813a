"""`brain audit`: who changed what."""

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from serve_app.cli.calling import Json, all_of, run, show
from serve_app.cli.options import Data
from serve_app.cli.running import ApiKey, Url


def audit(
    tenant: Annotated[
        str | None, typer.Option(metavar="ID", help="Another tenant, also one that is gone, with the operator's key.")
    ] = None,
    action: Annotated[str | None, typer.Option(help="Only this, as in key.create.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what was done to this id or name.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on, RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time, RFC 3339.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Entries at the most.")] = 50,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = None,
) -> None:
    """Who changed what of access, settings, users and data, the latest first."""
    asked = {"action": action, "subject": subject, "since": since, "until": until}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    found = run(
        lambda call: all_of(call, f"/admin/audit{'?' if query else ''}{query}", most), url, api_key, data, tenant
    )
    if not as_json:
        found = [{**one, "by": _by(one["actor"])} for one in found]
    show(found, as_json, ("at", "by", "action", "subject", "detail"), "Nothing was changed.")


def _by(actor: dict[str, Any]) -> str:
    return f"{actor['user'] or actor['key_id']} ({actor['role']})"

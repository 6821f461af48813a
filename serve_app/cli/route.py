"""`brain route`: what the choice of models did, and what other settings would have done."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from domain.replaying import Decision, Setting, Tally, recorded, replay
from serve_app.cli.database import with_database
from serve_app.cli.options import Data
from serve_app.cli.route_train import train
from serve_app.embedded.refusal import Refusal

app = typer.Typer(help="The choice of models for `auto`.", no_args_is_help=True)
DIALS = (0.0, 0.25, 0.5, 0.75, 1.0)


app.command("train")(train)


@app.command("replay")
def replay_command(
    since: Annotated[str, typer.Option(help="First moment: a date, a time, or a number of days such as 7d.")] = "7d",
    until: Annotated[str | None, typer.Option(help="End, not included (default: now).")] = None,
    tenant: Annotated[str | None, typer.Option(help="One tenant's turns alone.")] = None,
    cost_quality: Annotated[
        list[float] | None, typer.Option(min=0, max=1, help="A setting to try; repeatable (default: five).")
    ] = None,
    prefer: Annotated[
        list[str] | None, typer.Option(metavar="MODEL=WEIGHT", help="A preference from -1 to 1; repeatable.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Models and prices to try instead of those of then.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Data = None,
) -> None:
    """Decide again, offline, what `auto` decided since a moment: the models and the cost that other settings give.

    Tokens are those of the answers that were given: another model may have said more or less.
    """
    from storage import decisions

    begin, end = _moment(since), _moment(until) if until else datetime.now(UTC)
    settings = _settings(cost_quality, _preferences(prefer or []), config)
    tallies = [Tally("recorded"), *(Tally(setting.name) for setting in settings)]

    def work(url: str) -> None:
        total = decisions.count(url, begin, end, tenant)
        found: Iterator[Decision] = decisions.read(url, begin, end, tenant)
        for decision in track(
            found, "Replaying", total=total, console=Console(stderr=True), transient=True, disable=as_json
        ):
            _merge(tallies[0], recorded([decision]))
            for setting, tally in zip(settings, tallies[1:], strict=True):
                tally.add(decision, replay(decision, setting))

    with_database(data, work)
    if as_json:
        typer.echo(json.dumps([_told(tally) for tally in tallies], indent=2))
    elif not tallies[0].turns:
        typer.echo(f"No turn since {begin:%Y-%m-%d %H:%M} UTC was answered by a model that `auto` chose.")
    else:
        Console().print(_table(tallies))


def _merge(tally: Tally, one: Tally) -> None:
    tally.turns += one.turns
    tally.unpriced += one.unpriced
    tally.cost_usd += one.cost_usd
    tally.models.update(one.models)


def _settings(dials: list[float] | None, preferences: dict[str, float], config: Path | None) -> list[Setting]:
    from domain.model import parse_catalog
    from serve_app.embedded.plan import from_file

    catalog = None if config is None else parse_catalog(from_file(config))
    return [Setting(f"cost-quality {dial:g}", dial, preferences, catalog) for dial in dials or DIALS]


def _preferences(given: list[str]) -> dict[str, float]:
    found = {}
    for one in given:
        model, _, weight = one.rpartition("=")
        try:
            found[model] = float(weight)
        except ValueError:
            raise Refusal(f"--prefer {one!r} must be like small=0.2") from None
        if not model or not -1 <= found[model] <= 1:
            raise Refusal(f"--prefer {one!r}: the weight is a number from -1 to 1")
    return found


def _moment(given: str) -> datetime:
    if given.endswith("d") and given[:-1].isascii() and given[:-1].isdigit() and len(given) <= 5:
        return datetime.now(UTC) - timedelta(days=int(given[:-1]))
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise Refusal(f"{given!r} is no time: give 2026-11-01, 2026-11-01T08:00Z or 7d") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _told(tally: Tally) -> dict[str, Any]:
    return {
        "setting": tally.name,
        "turns": tally.turns,
        "models": dict(tally.models.most_common()),
        "changed": tally.changed,
        "cost_usd": float(tally.cost_usd),
        "unpriced": tally.unpriced,
        "unserved": tally.unserved,
    }


def _table(tallies: list[Tally]) -> Table:
    then = tallies[0]
    table = Table(title=f"{then.turns} turns that auto served", caption="cost: the tokens of then")
    for column in ("setting", "models", "changed", "cost (USD)", "against recorded"):
        table.add_column(column, justify="left" if column in ("setting", "models") else "right")
    for tally in tallies:
        shares = ", ".join(f"{model} {n / max(tally.turns, 1):.0%}" for model, n in tally.models.most_common(4))
        against = "" if tally is then or not then.cost_usd else f"{tally.cost_usd / then.cost_usd - 1:+.0%}"
        changed = "" if tally is then else f"{tally.changed / max(tally.turns, 1):.0%}"
        table.add_row(tally.name, shares or "none", changed, f"{tally.cost_usd:.6f}", against)
    return table

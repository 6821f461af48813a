"""`brain outbox`: what waits in the outbox, and a way past a consumer that will not come back."""

from typing import Annotated

import typer

from serve_app.cli.database import with_database
from serve_app.cli.options import Data

app = typer.Typer(help="Events that wait for their consumers.", no_args_is_help=True)
PORTION = 1_000  # rows of a transaction


@app.command()
def show(data: Data = None) -> None:
    """Tell the outbox's size, and what each consumer has not confirmed."""
    import psycopg

    def work(url: str) -> None:
        with psycopg.connect(url, prepare_threshold=None) as connection:
            size = connection.execute("SELECT * FROM brain.outbox_size()").fetchone()
            assert size is not None
            typer.echo(f"{size[0] / 1e6:,.1f} MB; the oldest row is {size[1] / 3600:,.1f} h old")
            for (name,) in connection.execute("SELECT name FROM brain.outbox_consumers ORDER BY name").fetchall():
                lag = connection.execute("SELECT * FROM brain.outbox_lag(%s)", [name]).fetchone()
                assert lag is not None
                typer.echo(f"{name}: {lag[0]:,} wait, the oldest for {lag[1]:,.0f} s; {lag[2]:,} set aside")

    with_database(data, work)


@app.command()
def skip(
    consumer: Annotated[str, typer.Argument(help="Its name, as `brain outbox show` tells it.")],
    hours: Annotated[float, typer.Option("--older-than", help="Hours; younger events go on waiting.")] = 24,
    data: Data = None,
) -> None:
    """Count events as done that a consumer never saw, so that they can be pruned.

    What the consumer should have done is not done: after `indexer`, run `brain reindex` when it works again.
    """
    import psycopg

    from serve_app.embedded.refusal import Refusal

    if consumer == "reindex":
        raise Refusal("a half-built space holds these: `brain reindex` goes on with it, `--discard` gives it up")

    def work(url: str) -> None:
        skipped = 0
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            known = connection.execute("SELECT FROM brain.outbox_consumers WHERE name = %s", [consumer]).fetchone()
            if known is None:
                raise Refusal(f"the outbox has no consumer {consumer}")
            before = connection.execute("SELECT now() - make_interval(secs => %s)", [hours * 3600]).fetchone()
            assert before is not None
            while True:
                row = connection.execute(
                    "SELECT brain.skip_outbox(%s, %s, %s)", [consumer, before[0], PORTION]
                ).fetchone()
                assert row is not None
                skipped += row[0]
                if not row[0]:
                    break
        typer.echo(f"{skipped:,} events are skipped" + (": run `brain reindex`" if consumer == "indexer" else ""))

    with_database(data, work)

"""`brain up`: everything on this machine, in the foreground."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from serve_app.cli.options import Data, read_settings


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="TCP port (default: 8000).")] = None,
    data: Data = None,
    provider_url: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible base URL, ending in /v1.")
    ] = None,
    provider_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", envvar="BRAIN_PROVIDER_KEY", help="The provider's API key.", show_default=False),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A model of the provider, or a pattern; repeatable.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML file with `providers` and `routing`, for more than one.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write url, api_key, tenant_id and pid here (JSON) when ready.")
    ] = None,
) -> None:
    """Run the Brain on this machine until Ctrl-C: PostgreSQL, Redis, Ray and the API, with what they keep in --data.

    BRAIN_DATABASE_URL, BRAIN_REDIS_URL and BRAIN_VECTORS_URL replace the embedded servers; `brain settings` lists all
    variables. Without a provider, the `scripted` model answers.
    """
    from serve_app.embedded.folder import DataFolder
    from serve_app.embedded.plan import Plan, check_vllm, from_file, from_flags
    from serve_app.embedded.refusal import Refusal
    from serve_app.embedded.reporter import Reporter
    from serve_app.embedded.supervisor import Supervisor

    settings = read_settings()
    catalog: dict[str, Any] | None = None
    environment: dict[str, str] = {}
    if config is not None and provider_url is not None:
        raise Refusal("--config and --provider-url exclude each other: put the provider into the file")
    if config is not None:
        catalog = from_file(config)
        check_vllm(catalog)
    elif provider_url is not None:
        catalog, environment = from_flags(provider_url, provider_key, model or [])
    elif model:
        raise Refusal("--model needs --provider-url")
    if ready_file is not None:
        ready_file = ready_file.expanduser().absolute()
        if not ready_file.parent.is_dir():
            raise Refusal(f"--ready-file: there is no folder {ready_file.parent}")
        ready_file.unlink(missing_ok=True)
    plan = Plan(host or settings.host, port or settings.port, catalog, environment, ready_file)
    folder = DataFolder(data or settings.data)
    asyncio.run(_until_stopped(Supervisor(folder, settings, plan, Reporter())))


async def _until_stopped(supervisor: object) -> None:
    from serve_app.embedded.refusal import Refusal
    from serve_app.embedded.supervisor import Supervisor

    assert isinstance(supervisor, Supervisor)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    try:
        await supervisor.run(stop)
    except* Refusal as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """One of several parts' refusals is enough to act on."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error

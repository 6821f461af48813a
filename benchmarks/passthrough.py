"""The floor for a service of this shape: ingress → middle → proxy on Ray Serve, which pass on what the provider sends.

Two hops over handles, one item a token, no checks, no state. `python -m benchmarks.passthrough --help`; the provider
is read from BENCH_PROVIDER_URL and BENCH_PROVIDER_KEY.
"""

import argparse
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import ray
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from ray import serve

api = FastAPI()


class Proxy:
    """Holds the connections to the provider."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._headers = f"{url}/chat/completions", {"authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None

    def _post(self, body: bytes) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=self._headers)
        return self._session.post(self._url, data=body)

    async def whole(self, body: bytes) -> bytes:
        """The provider's answer."""
        async with self._post(body) as answer:
            return bytes(await answer.read())

    async def stream(self, body: bytes) -> AsyncIterator[bytes]:
        """The provider's events, one by one."""
        async with self._post(body) as answer:
            rest = b""
            async for piece in answer.content.iter_any():
                *events, rest = (rest + piece).split(b"\n\n")
                for event in events:
                    yield event + b"\n\n"


class Middle:
    """Stands where the conversation's host stands."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy

    async def whole(self, body: bytes) -> bytes:
        """Pass the answer on."""
        return bytes(await self._proxy.whole.remote(body))

    async def stream(self, body: bytes) -> AsyncIterator[bytes]:
        """Pass each event on."""
        async for event in self._proxy.options(stream=True).stream.remote(body):
            yield event


@serve.ingress(api)  # where the module is imported: replicas take the route's function from there
class Ingress:
    """The HTTP side."""

    def __init__(self, middle: Any) -> None:
        self._middle = middle

    @api.post("/v1/chat/completions")
    async def chat(self, request: Request) -> Response:
        """Streamed or not, as the body asks."""
        body = await request.body()
        if b'"stream":true' in body:
            events = self._middle.options(stream=True).stream.remote(body)
            return StreamingResponse(events, media_type="text/event-stream")
        return Response(await self._middle.whole.remote(body), media_type="application/json")


def application(url: str, key: str) -> serve.Application:
    """Two ingress and two middle replicas, one proxy, as the service's default."""
    options = {
        "max_ongoing_requests": 1000,
        "ray_actor_options": {"num_cpus": 0},
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
    }
    proxy = serve.deployment(Proxy, **options).bind(url, key)
    middle = serve.deployment(Middle, num_replicas=2, **options).bind(proxy)
    ingress = serve.deployment(Ingress, num_replicas=2, **options)
    return ingress.bind(middle)


def build(args: dict[str, str]) -> serve.Application:
    """For a Serve configuration file; `args`: the provider's `url` and `key`."""
    return application(args["url"], args["key"])


def main() -> None:
    """Serve until SIGTERM. Ray's processes are ended by whoever started this one."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--ready-file", type=Path, required=True)
    options.add_argument("--folder", type=Path, required=True, help="for Ray's files; a short path (sockets)")
    chosen = options.parse_args()
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=4,
        object_store_memory=80 * 2**20,
        _temp_dir=str(chosen.folder),
        _node_ip_address="127.0.0.1",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": chosen.port})
    serve.run(application(os.environ["BENCH_PROVIDER_URL"], os.environ["BENCH_PROVIDER_KEY"]), name="passthrough")
    chosen.ready_file.touch()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pause()


if __name__ == "__main__":
    main()

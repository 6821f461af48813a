"""TCP between the service and its stores, where connections can be cut at the worst moment, or say nothing any more."""

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

Mode = Literal["pass", "lose answers", "lose requests", "silent"]
CHUNK = 1 << 16
SHARE = 0.1  # of the chunks that are lost while connections are being cut


class Proxy:
    """Listens on loopback and passes on to the port that `target` names when somebody connects.

    `mode`: "lose answers": the server did what it was asked, and the connection breaks before it can say so.
    "lose requests": it breaks with what was asked. "silent": nothing arrives any more, at either side.
    """

    def __init__(self, target: Callable[[], int], seed: int) -> None:
        self.mode: Mode = "pass"
        self.cut = 0
        self._target = target
        self._drawn = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = server.result(10)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """End every connection, and listen no more."""

        async def end() -> None:
            self._server.close()
            for task in list(self._open):
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(OSError):
                back, there = await asyncio.open_connection("127.0.0.1", self._target())
                asked = asyncio.create_task(self._pass(reader, there, "lose requests"))
                told = asyncio.create_task(self._pass(back, writer, "lose answers"))
                try:
                    await asyncio.wait({asked, told}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    asked.cancel()
                    told.cancel()
                    there.transport.abort()
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: Mode) -> None:
        """Returns where the connection is to be cut."""
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                while self.mode == "silent":
                    await asyncio.sleep(0.02)
                if self.mode == losing and self._drawn.random() < SHARE:
                    self.cut += 1
                    return
                writer.write(data)
                await writer.drain()

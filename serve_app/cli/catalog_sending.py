"""Products on their way to the service, batch by batch. Each is stored as a whole, so it may all be sent again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import orjson

from serve_app.cli.calling import Call
from serve_app.cli.catalog_file import Line, as_json

MOST, BYTES = 500, 700_000  # of one request, which may have 1 MiB


@dataclass
class Sent:
    """`wrong`: lines that the service refused, and what it said."""

    created: int = 0
    replaced: int = 0
    wrong: list[tuple[int, str]] = field(default_factory=list)


async def send(call: Call, lines: Sequence[Line], advance: Callable[[int], None]) -> Sent:
    sent = Sent()
    for numbers, body in _batches(lines):
        told = await call(
            "POST", "/catalog/products/import", data=body, headers={"content-type": "application/x-ndjson"}
        )
        sent.created += told["created"]
        sent.replaced += told["replaced"]
        sent.wrong += [(numbers[one["line"] - 1], one["message"]) for one in told["errors"]]
        advance(len(numbers))
    return sent


def _batches(lines: Sequence[Line]) -> Iterator[tuple[list[int], bytes]]:
    """Numbers of lines in the file, and the body that holds them."""
    numbers: list[int] = []
    parts: list[bytes] = []
    size = 0
    for line in lines:
        if line.product is None:
            continue
        part = orjson.dumps(as_json(line.product)) + b"\n"
        if parts and (size + len(part) > BYTES or len(parts) == MOST):
            yield numbers, b"".join(parts)
            numbers, parts, size = [], [], 0
        numbers.append(line.number)
        parts.append(part)
        size += len(part)
    if parts:
        yield numbers, b"".join(parts)

"""Server-sent events from raw bytes (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

MAX_LINE = 4 << 20  # bytes


class EventParser:
    """Finds the data of events in a stream that is cut anywhere. Lines end with LF or CRLF."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that this chunk completes; raises ValueError for a line beyond MAX_LINE bytes."""
        lines = (self._rest + chunk).split(b"\n") if self._rest else chunk.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE:
            raise ValueError("a line is too long")
        data, events = self._data, []
        for line in lines:
            if line[:5] == b"data:":
                data.append(line[5:].strip())  # what is sent is JSON: space around it has no meaning
            elif data and (not line or line == b"\r"):
                events.append(data[0] if len(data) == 1 else b"\n".join(data))
                data.clear()
        return events

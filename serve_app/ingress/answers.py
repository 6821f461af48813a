"""Ready answers: JSON through orjson, with no further serialization by the framework."""

from typing import Any

import orjson
from starlette.responses import Response

from storage.pages import Page

JSON_TYPE = (b"content-type", b"application/json")


class Answer(Response):
    """A JSON answer."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.status_code = status
        self.background = None
        self.body = orjson.dumps(content)
        self.raw_headers = [
            (b"content-length", str(len(self.body)).encode()),
            JSON_TYPE,
            *((name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()),
        ]


def list_json(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def page_answer(page: Page[Any], shape: Any) -> Answer:
    return Answer(list_json([shape(one) for one in page.data], page.has_more))

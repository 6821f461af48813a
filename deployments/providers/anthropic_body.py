"""What Anthropic's Messages API is asked, from OpenAI's shape: https://docs.anthropic.com/en/api/messages.

The prompt's order there is tools, system, messages. Marks for its prompt cache stand at the end of the system prompt
(or of the tools, where there is none) and at the end of what the conversation's next prompt begins with.
https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching
"""

import re
from typing import Any

import orjson

from deployments.providers.reading import refuse
from domain.generation import GenerationRequest
from domain.model import Route

Block = dict[str, Any]

SAMPLING = "sampling"  # capability of models that still take `temperature` and `top_p`; the others answer 400
JSON_TOOL = "json_answer"
MARK = {"cache_control": {"type": "ephemeral"}}
SYSTEM = frozenset({"system", "developer"})
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
_DATA = re.compile(r"data:image/(jpe?g|png|gif|webp);base64,")


def body_of(route: Route, request: GenerationRequest) -> dict[str, Any]:
    """The request's body; `seed` is a wish, and dropped. Raises a `refused` failure for what cannot be expressed."""
    given = route.model.defaults.model_dump(exclude_none=True)
    given |= {name: value for name, value in request.parameters.items() if value is not None}
    system, messages = converted(request.messages, request.stable)
    if prefix := request.prefix.rstrip():
        messages.append({"role": "assistant", "content": [{"type": "text", "text": prefix}]})
    body: dict[str, Any] = {
        "model": route.upstream,
        "max_tokens": given.get("max_tokens", route.model.max_output_tokens),
        "messages": messages,
        "stream": True,
    }
    if system:
        body["system"] = system
    if stop := given.get("stop"):
        body["stop_sequences"] = stops_of(stop)
    if SAMPLING in route.model.capabilities:
        limits = {"temperature": 1.0, "top_p": 1.0}  # OpenAI's temperature goes up to 2
        body |= {name: min(given[name], most) for name, most in limits.items() if name in given}
    body |= tools_of(given)
    if form := given.get("response_format"):
        body |= format_of(form, body)
    if body.get("tools") and not system:
        body["tools"][-1] |= MARK
    return body


def converted(messages: list[dict[str, Any]], stable: int) -> tuple[list[Block], list[dict[str, Any]]]:
    """System blocks and messages. Neighbours of one role become one message, as the results of parallel calls must.

    System messages stand before all others there, wherever they stood here.
    """
    system: list[Block] = []
    turned: list[dict[str, Any]] = []
    for place, message in enumerate(messages, 1):
        if message["role"] in SYSTEM:
            system += blocks_of(message.get("content"))
            continue
        role = "user" if message["role"] in ("user", "tool") else "assistant"
        blocks = blocks_for(message)
        if blocks and turned and turned[-1]["role"] == role:
            turned[-1]["content"] += blocks
        elif blocks:
            turned.append({"role": role, "content": blocks})
        if place == stable and turned:
            turned[-1]["content"][-1] |= MARK
    if system:
        system[-1] |= MARK
    if turned and turned[-1]["role"] == "assistant" and turned[-1]["content"][-1]["type"] == "text":
        last = turned[-1]["content"][-1]
        last["text"] = last["text"].rstrip() or refuse("the last message of the assistant is empty")
    return system, turned


def blocks_for(message: dict[str, Any]) -> list[Block]:
    content = message.get("content")
    if message["role"] == "tool":
        result = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
        return [{**result, "content": blocks_of(content)} if content else result]
    return [*blocks_of(content), *(call_of(call) for call in message.get("tool_calls") or ())]


def blocks_of(content: Any) -> list[Block]:
    """Text and images; an empty text is refused there, and left out."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    return [image_of(part) if part["type"] == "image_url" else dict(part) for part in parts if part.get("text") != ""]


def image_of(part: dict[str, Any]) -> Block:
    url = part["image_url"]["url"]
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    if (found := _DATA.match(url)) is None:
        refuse("an image must be a JPEG, PNG, GIF or WebP in base64")
    kind = "jpeg" if found[1] == "jpg" else found[1]
    source = {"type": "base64", "media_type": f"image/{kind}", "data": url[found.end() :]}
    return {"type": "image", "source": source}


def call_of(call: dict[str, Any]) -> Block:
    function = call["function"]
    try:
        given = orjson.loads(function["arguments"] or "{}")
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        refuse(f"the arguments of the tool call {call['id']!r} are no JSON object")
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": given}


def tools_of(given: dict[str, Any]) -> dict[str, Any]:
    if not given.get("tools"):
        return {}
    choice = choice_of(given.get("tool_choice", "auto"))
    if given.get("parallel_tool_calls") is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    told = {"tool_choice": choice} if choice != {"type": "auto"} else {}
    return {"tools": [tool_of(tool["function"]) for tool in given["tools"]], **told}


def tool_of(function: dict[str, Any]) -> dict[str, Any]:
    tool = {"name": function["name"], "input_schema": {**NO_PARAMETERS, **(function.get("parameters") or {})}}
    optional = {name: function[name] for name in ("description", "strict") if function.get(name)}
    return {**tool, **optional}


def choice_of(choice: Any) -> dict[str, Any]:
    if isinstance(choice, dict):
        return {"type": "tool", "name": choice["function"]["name"]}
    return {"type": {"required": "any"}.get(choice, choice)}


def format_of(form: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """A schema is the API's own; JSON without one is the input of a tool that must be called."""
    if form["type"] == "json_schema":
        schema = form["json_schema"].get("schema") or {"type": "object"}
        return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    if form["type"] != "json_object":
        return {}
    if body.get("tools"):
        refuse("this model cannot take `tools` and the response format `json_object` together; use `json_schema`")
    tool = {
        "name": JSON_TOOL,
        "description": "Give the whole answer as the input of this tool, a JSON object with the fields asked for.",
        "input_schema": {"type": "object"},
    }
    return {"tools": [tool], "tool_choice": {"type": "tool", "name": JSON_TOOL, "disable_parallel_tool_use": True}}


def stops_of(stop: str | list[str]) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop
    if not all(mark.strip() for mark in stops):
        refuse("this model takes no `stop` of white space alone")
    return stops

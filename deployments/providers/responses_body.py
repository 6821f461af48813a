"""What OpenAI's Responses API is asked, from the shape of its chat API.

https://platform.openai.com/docs/api-reference/responses/create
"""

from typing import Any

from deployments.providers.http import OPENAI_HOST, host_of
from deployments.providers.reading import refuse
from domain.generation import GenerationRequest
from domain.model import Route

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
SYSTEM = frozenset({"system", "developer"})


def body_of(route: Route, request: GenerationRequest) -> dict[str, Any]:
    """The request's body; `seed` is a wish, and dropped. Raises a `refused` failure for what cannot be expressed."""
    given = route.model.defaults.model_dump(exclude_none=True)
    given |= {name: value for name, value in request.parameters.items() if value is not None}
    if given.get("stop"):
        refuse(f"the model {route.id!r} takes no `stop`")
    if request.prefix:
        refuse(f"the model {route.id!r} cannot go on from a partial text")
    instructions, items = split(request.messages)
    body: dict[str, Any] = {"model": route.upstream, "input": items, "stream": True, "store": route.model.reattach}
    if route.model.reattach:
        body["background"] = True
    if instructions:
        body["instructions"] = instructions
    names = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_output_tokens"}
    body |= {theirs: given[ours] for ours, theirs in names.items() if ours in given}
    if tools := given.get("tools"):
        body["tools"] = [tool_of(tool) for tool in tools]
        if choice := given.get("tool_choice"):
            named = isinstance(choice, dict)
            body["tool_choice"] = {"type": "function", "name": choice["function"]["name"]} if named else choice
        if "parallel_tool_calls" in given:
            body["parallel_tool_calls"] = given["parallel_tool_calls"]
    if form := given.get("response_format"):
        body["text"] = {"format": {"type": form["type"], **form.get("json_schema", {})}}
    if request.session and host_of(route.provider) == OPENAI_HOST:
        body["prompt_cache_key"] = request.session
    return body


def split(messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The instructions (the system messages at the beginning) and the input items after them."""
    first = next((i for i, message in enumerate(messages) if message["role"] not in SYSTEM), len(messages))
    instructions = "\n\n".join(text_of(message.get("content")) for message in messages[:first])
    return instructions, [item for message in messages[first:] for item in items_of(message)]


def items_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    role, content = message["role"], message.get("content")
    if role == "tool":
        output = text_of(content)
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": output}]
    items: list[dict[str, Any]] = []
    if role == "user" and isinstance(content, list):
        items.append({"role": role, "content": [part_of(part) for part in content]})
    elif content:
        items.append({"role": role, "content": text_of(content)})
    for call in message.get("tool_calls") or ():
        function = call["function"]
        named = {"call_id": call["id"], "name": function["name"], "arguments": function["arguments"]}
        items.append({"type": "function_call", **named})
    return items


def part_of(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "input_text", "text": part["text"]}
    image = part["image_url"]
    return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail") or "auto"}


def text_of(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def tool_of(tool: dict[str, Any]) -> dict[str, Any]:
    """A function tool, flat. Here `strict` is on unless it is told otherwise, there it is off."""
    function = tool["function"]
    flat = {"type": "function", "name": function["name"], "parameters": function.get("parameters") or NO_PARAMETERS}
    if function.get("description"):
        flat["description"] = function["description"]
    return {**flat, "strict": bool(function.get("strict"))}

"""Intents in a YAML file: `name: [example, …]`, or `name: {description, examples, slots, needs_products}`."""

from pathlib import Path
from typing import Any

import yaml

from serve_app.embedded.refusal import Refusal

FIELDS = ("description", "examples", "slots", "needs_products")


def read_intents(path: Path) -> list[dict[str, Any]]:
    """The bodies of the API, in the file's order. Raises `Refusal` naming what is wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(f"{path} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refusal(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise Refusal(f"{path} holds no intents: write `name: [example, …]` for each")
    return [_intent(path, str(name), found) for name, found in content.items()]


def _intent(path: Path, name: str, found: Any) -> dict[str, Any]:
    given = {"examples": found} if isinstance(found, list) else found
    if not isinstance(given, dict):
        raise Refusal(f"{path}: {name} must be a list of examples, or have {', '.join(FIELDS)}")
    if unknown := [field for field in given if field not in FIELDS]:
        raise Refusal(f"{path}: {name} has an unknown field {unknown[0]!r}; there are {', '.join(FIELDS)}")
    examples = given.get("examples") or []
    if not isinstance(examples, list):
        raise Refusal(f"{path}: the examples of {name} must be a list")
    for number, text in enumerate(examples, 1):
        if not isinstance(text, str):  # YAML reads `no` and `12` as something else
            raise Refusal(f"{path}: example {number} of {name} is {text!r}, not a text: put it in quotation marks")
    return {**given, "name": name, "examples": examples}

"""Public identifiers: a prefix that names the kind, and a UUIDv7 in hex (RFC 9562), so that ids sort by creation."""

import os
import re
import time
from typing import Literal

Prefix = Literal[
    "conv",
    "msg",
    "turn",
    "int",
    "usr",
    "ten",
    "key",
    "req",
    "train",
    "aud",
    "ses",
    "cli",
    "tok",
    "rcpt",
    "evt",
    "whk",
    "dlv",
    "chn",
    "mcp",
    "wid",
]

_SHAPE = re.compile(r"^(conv|msg|turn|int|usr|ten|key|train|aud|ses|cli|rcpt|evt|whk|dlv|chn|mcp|wid)_[0-9a-f]{32}$")


def new_id(prefix: Prefix) -> str:
    """A fresh id such as `turn_0192f0c1…` (prefix, underscore, 32 hexadecimal digits)."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76  # version 7
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant of RFC 9562
    return f"{prefix}_{value:032x}"


def is_id(value: str, prefix: Prefix) -> bool:
    """Whether `value` has the shape of an id of this kind; a malformed id is an unknown id."""
    return bool(_SHAPE.match(value)) and value.startswith(prefix + "_")

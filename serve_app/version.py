"""The installed version."""

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


@cache
def version() -> str:
    try:
        return installed("chat-brain")
    except PackageNotFoundError:
        return "0"

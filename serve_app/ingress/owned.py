"""What a signed-in user may reach: conversations of its own. Another user's are unknown, as another tenant's are."""

from starlette.requests import Request

from domain.errors import NotFound
from domain.ids import Prefix
from domain.tenant import Caller
from serve_app.ingress.params import known
from serve_app.ingress.parts import parts_of

_NAMED: tuple[tuple[str, Prefix, str], ...] = (
    ("conversation_id", "conv", "conversation"),
    ("message_id", "msg", "message"),
    ("turn_id", "turn", "turn"),
)


async def check_own(request: Request, caller: Caller) -> None:
    """Raises `NotFound` where the path names what belongs to another user than the caller."""
    for parameter, prefix, what in _NAMED:
        if (value := request.path_params.get(parameter)) is not None:
            await _check(request, caller, what, known(value, prefix, what))


async def check_conversation(request: Request, caller: Caller, conversation_id: str) -> None:
    """As `check_own`, of a conversation that the path does not name."""
    await _check(request, caller, "conversation", known(conversation_id, "conv", "conversation"))


async def _check(request: Request, caller: Caller, what: str, value: str) -> None:
    if caller.only_user is None:
        return
    if await parts_of(request).reader.user_of(caller.tenant, what, value) != caller.only_user:
        raise NotFound(f"there is no such {what}")


def own_user(caller: Caller, asked: str | None) -> str | None:
    """The user of whose conversations a list tells: who may see them all asks for anyone's. Raises `NotFound` for
    another user's, where the caller sees its own alone."""
    if caller.only_user is not None and asked not in (None, caller.only_user):
        raise NotFound("there is no such user")
    return caller.only_user or asked

"""Nobody gives more than he has: what a key, a role or a user is given is no wider than what its giver may do."""

from collections.abc import Collection

from domain.errors import BrainError
from domain.permissions import OPERATOR, Permission
from domain.tenant import Caller


class Wider(BrainError):
    """This would let somebody do more than you may yourself."""

    status = 403
    type = "permission_error"
    code = "wider_than_own"


def check_role(role: str) -> None:
    """Raises `Wider` for the operator's role, which nobody gives."""
    if role == OPERATOR:
        raise Wider("nobody gives the operator's role")


def check_given(giver: Caller, given: Collection[Permission]) -> None:
    """Raises `Wider`, naming a permission that the giver lacks."""
    if lacking := sorted(set(given) - giver.permissions):
        raise Wider(f"this would give the permission {lacking[0].value}, which you do not have yourself")


def check_key(giver: Caller, given: Collection[Permission], user: str | None) -> None:
    """As `check_given`, of a key of `user`, or (None) of the tenant. A key of another user acts as that user; a key of
    nobody's sees every conversation, so who sees his own alone gives away no such key."""
    check_given(giver, given)
    if giver.only_user is not None and user != giver.only_user:
        raise Wider("you may make keys of your own user alone")
    if user is not None and user != giver.user and not giver.may(Permission.USERS_MANAGE):
        raise Wider("a key of another user needs the permission users:manage")

"""What the service's login may do. Each new connection is checked: a login with more than it needs is refused."""

from typing import Any

from domain.errors import Unavailable

GROUP = "brain_app"
_BOUND_BY_NOTHING = """
SELECT session_user AS login, ARRAY(
    SELECT rolname::text FROM pg_roles WHERE (rolsuper OR rolbypassrls) AND pg_has_role(session_user, oid, 'MEMBER')
) AS beyond
"""
_RIGHTS = f"""
SELECT current_user AS login,
    pg_has_role(current_user, to_regrole('{GROUP}'), 'USAGE') AS serves,
    ARRAY(
        SELECT rolname::text FROM pg_roles WHERE (rolsuper OR rolbypassrls OR oid IN (
            SELECT nspowner FROM pg_namespace WHERE nspname = 'brain'
            UNION SELECT relowner FROM pg_class WHERE relnamespace = to_regnamespace('brain')
            UNION SELECT proowner FROM pg_proc WHERE pronamespace = to_regnamespace('brain')
        )) AND pg_has_role(current_user, oid, 'MEMBER')
    ) AS beyond
"""


async def check_direct(connection: Any) -> None:
    """Raises `Unavailable` for a login that row-level security does not bind, or that may become one.

    The schema's owner may serve: the connection has taken the role `brain_app`, and what else that login may do is out
    of reach of each statement.
    """
    found = await connection.fetchrow(_BOUND_BY_NOTHING)
    if found["beyond"]:
        raise Unavailable(
            f"the login {found['login']} may act as {', '.join(found['beyond'])}, whom no row-level security binds:"
            f" give the service a login of its own, that is a member of {GROUP} alone"
        )


async def check_pooled(connection: Any) -> None:
    """Raises `Unavailable` unless the login has the rights of `brain_app`, and no way to have more: behind a pooler no
    role is taken, so statements have all that the login has."""
    found = await connection.fetchrow(_RIGHTS)
    if not found["serves"]:
        raise Unavailable(f"the login {found['login']} does not inherit {GROUP}: GRANT {GROUP} TO {found['login']}")
    if found["beyond"]:
        raise Unavailable(
            f"the login {found['login']} may act as {', '.join(found['beyond'])}: behind a pooler the service refuses"
            f" to run with more rights than {GROUP}; give it a login of its own"
        )

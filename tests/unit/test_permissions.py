"""Roles, scopes, and that each route names the permission it needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.permissions import GIVEN, OPERATOR, ROLES, Permission, UnknownPermission, checked, permissions_of
from serve_app.ingress.matrix import FILE, application, matrix, routes

PUBLIC = {
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/api/v1/auth/authorize"),  # the password is the credential
    ("POST", "/api/v1/auth/authorize"),
    ("POST", "/api/v1/auth/token"),  # the client's secret, or the code
    ("POST", "/api/v1/auth/revoke"),
    ("POST", "/api/v1/auth/introspect"),
    ("POST", "/api/v1/auth/refresh"),  # the refresh token is the credential
    ("GET", "/.well-known/receipts.json"),
    ("POST", "/api/v1/channels/{channel_id}/inbound"),  # the signature is the credential
    ("POST", "/api/v1/widgets/{channel_id}/sessions"),  # a script on a page can keep no secret
    ("GET", "/.well-known/oauth-protected-resource"),
    ("GET", "/.well-known/oauth-protected-resource/mcp"),
}
"""What anybody may ask for, without a credential."""

names = st.sampled_from([one.value for one in Permission]) | st.text(max_size=20)


@pytest.fixture(scope="module")
def app():
    return application()


def test_each_route_names_one_permission_or_is_public(app):
    found = list(routes(app))
    assert len(found) > 60
    wrong = [(method, path) for method, path, named in found if (method, path) not in PUBLIC and len(named) != 1]
    assert wrong == []
    assert {(method, path) for method, path, _ in found} >= PUBLIC
    assert all(not named for method, path, named in found if (method, path) in PUBLIC)


def test_what_reaches_beyond_a_tenant_is_the_operators_alone():
    for role in GIVEN:
        assert not any(one.beyond_tenant for one in ROLES[role]), role
    assert ROLES[OPERATOR] == frozenset(Permission)
    assert ROLES["read-only"].isdisjoint({one for one in Permission if one.endswith((":write", ":manage", ":send"))})
    assert ROLES["member"] < ROLES["agent"] < ROLES["admin"] < ROLES["owner"]


@given(st.sampled_from([*ROLES, "made-up"]), st.none() | st.lists(names), st.none() | st.lists(names))
def test_no_role_of_a_tenant_and_no_scope_widens(role, custom, scopes):
    held = permissions_of(role, custom, scopes)
    assert held <= permissions_of(role, custom)
    if role != OPERATOR:
        assert not any(one.beyond_tenant for one in held)
    if scopes is not None:
        assert held <= set(scopes)


def test_a_permission_that_cannot_be_given_is_named():
    assert checked(["models:read"]) == {Permission.MODELS_READ}
    for name in ("models:fly", Permission.PLATFORM_TENANTS):
        with pytest.raises(UnknownPermission, match=name):
            checked(["models:read", name])


def test_the_table_of_who_may_do_what_is_what_the_routes_say(app):
    assert FILE.read_text(encoding="utf-8") == matrix(app), "run `python -m serve_app.ingress.matrix`"

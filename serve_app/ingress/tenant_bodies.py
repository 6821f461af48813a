"""What the routes of tenants, keys and roles are given, and what they answer."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field

from domain.audit import AuditEntry
from domain.keys import LONGEST_OVERLAP, USUAL_OVERLAP, ApiKey, MadeKey
from domain.roles import Role
from domain.tenant import Tenant, TenantStatus
from domain.tenant_settings import TenantSettings
from serve_app.ingress.bodies import Native, UserId
from serve_app.ingress.intent_bodies import Name


def _moment(value: object) -> object:
    """Bodies are read strictly, and JSON has no type for times."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _in_reach(at: datetime) -> datetime:
    if not 2000 <= at.year <= 2200:
        raise ValueError("must lie between 2000 and 2200")
    return at


Scopes = Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=100)]
RoleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Ends = Annotated[AwareDatetime, BeforeValidator(_moment), AfterValidator(_in_reach)]


class TenantCreate(Native):
    name: Name
    settings: TenantSettings = TenantSettings()


class TenantPatch(Native):
    """What is given is set. Of `settings` too: those that are named take the place of what they were, null puts one
    back to what it is by default, and others stay."""

    name: Name | None = None
    status: TenantStatus | None = None
    settings: TenantSettings | None = None


class KeyCreate(Native):
    """`scopes`: permissions to which the key is narrowed; all of its role if not given. `user_id`: whose key it is."""

    name: Name
    role: Annotated[str, Field(min_length=1, max_length=63)] = "member"
    scopes: Scopes | None = None
    expires_at: Ends | None = None
    user_id: UserId | None = None


class KeyRotate(Native):
    """`overlap_seconds`: how long the key that is replaced still counts; an hour if not given."""

    overlap_seconds: Annotated[int, Field(ge=0, le=LONGEST_OVERLAP)] = USUAL_OVERLAP


class RoleCreate(Native):
    name: RoleName
    description: Annotated[str, Field(max_length=500)] = ""
    permissions: Scopes


class RolePut(Native):
    """A role as it shall be. `name`: that of the path, if it is given."""

    name: RoleName | None = None
    description: Annotated[str, Field(max_length=500)] = ""
    permissions: Scopes


class _ListOf(BaseModel):
    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class TenantAnswer(Tenant):
    """`model_settings`: where the tenant's rules for models are."""

    model_settings: str


class TenantList(_ListOf):
    data: list[TenantAnswer]


class KeyList(_ListOf):
    data: list[ApiKey]


class MadeKeys(_ListOf):
    """The new keys, shown once."""

    data: list[MadeKey]


class RoleList(_ListOf):
    data: list[Role]


class PermissionTold(BaseModel):
    object: Literal["permission"] = "permission"
    name: str
    operators_own: bool


class PermissionList(_ListOf):
    data: list[PermissionTold]


class AuditList(_ListOf):
    data: list[AuditEntry]


class Removed(BaseModel):
    id: str
    object: Literal["tenant", "api_key", "role"]
    deleted: Literal[True] = True


def tenant_json(tenant: Tenant) -> dict[str, Any]:
    return {**tenant.model_dump(mode="json"), "model_settings": f"/api/v1/tenants/{tenant.id}/model-settings"}


def key_json(key: ApiKey) -> dict[str, Any]:
    return key.model_dump(mode="json")


def role_json(role: Role) -> dict[str, Any]:
    return role.model_dump(mode="json")

"""After the master key was replaced: all that the database keeps sealed, sealed anew under the present one.

Only the small keys are sealed anew, not the secrets themselves. As the schema's owner; a run that was stopped is begun
again, and a change that somebody makes meanwhile counts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from domain.model import Provider
from storage import catalogue_sources
from storage.access import API_KEYS, pepper_name
from storage.sealing import CannotOpen, MasterKeys
from storage.subscribers import CHANNELS, WEBHOOKS, Table, sealed_as
from storage.tool_servers import seal_name

ROUNDS = 20  # of looking again, where entries change meanwhile


@dataclass
class Resealed:
    """`lost`: what no master key at hand opens. `old_keys`, `bare_keys`: API keys that are still known under the pepper
    of an earlier master key, and without one: each changes where it is used, or is made anew."""

    sealed: int = 0
    already: int = 0
    lost: list[str] = field(default_factory=list)
    old_keys: int = 0
    bare_keys: int = 0


def reseal(url: str, keys: MasterKeys, tell: Callable[[int, int], None] = lambda done, total: None) -> Resealed:
    """`tell` hears how many of how many secrets are done."""
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        for _ in range(ROUNDS):
            found = Resealed()
            rows = [
                *_providers(connection),
                *_signing_keys(connection),
                *_tool_servers(connection),
                *_subscribers(connection),
                *_catalogue_sources(connection),
            ]
            again = False
            for done, (name, bound_to, sealed, put) in enumerate(rows, 1):
                try:
                    fresh = keys.resealed(sealed, bound_to)
                except (CannotOpen, KeyError):
                    found.lost.append(name)
                else:
                    found.already += fresh is None
                    if fresh is not None:
                        kept = put(fresh)
                        found.sealed += kept
                        again |= not kept
                tell(done, len(rows))
            if not again:
                break
        _count_keys(connection, keys, found)
    return found


Row = tuple[str, str, dict[str, Any], Callable[[dict[str, str]], bool]]


def _providers(connection: psycopg.Connection[dict[str, Any]]) -> list[Row]:
    found = connection.execute(
        "SELECT name, version, entry FROM brain.providers"
        " WHERE NOT removed AND jsonb_typeof(entry->'sealed_key') = 'object'"
    ).fetchall()

    def row(one: dict[str, Any]) -> Row:
        shell = Provider.model_construct(name=one["name"], base_url=one["entry"].get("base_url"))

        def put(sealed: dict[str, str]) -> bool:
            changed = connection.execute(
                "UPDATE brain.providers SET entry = jsonb_set(entry, '{sealed_key}', %s)"
                " WHERE name = %s AND version = %s",
                (Jsonb(sealed), one["name"], one["version"]),
            )
            return changed.rowcount == 1

        return f"the key of provider {one['name']}", shell.seal_name, one["entry"]["sealed_key"], put

    return [row(one) for one in found]


def _signing_keys(connection: psycopg.Connection[dict[str, Any]]) -> list[Row]:
    def row(one: dict[str, Any]) -> Row:
        def put(sealed: dict[str, str]) -> bool:
            changed = connection.execute(
                "UPDATE brain.signing_keys SET sealed = %s WHERE id = %s AND sealed = %s",
                (Jsonb(sealed), one["id"], Jsonb(one["sealed"])),
            )
            return changed.rowcount == 1

        return f"the signing key {one['id']}", f"signing-key:{one['id']}", one["sealed"], put

    return [row(one) for one in connection.execute("SELECT id, sealed FROM brain.signing_keys").fetchall()]


def _tool_servers(connection: psycopg.Connection[dict[str, Any]]) -> list[Row]:
    found = connection.execute(
        "SELECT tenant_id, id, url, sealed FROM brain.tool_servers WHERE sealed IS NOT NULL"
    ).fetchall()

    def row(one: dict[str, Any]) -> Row:
        def put(sealed: dict[str, str]) -> bool:
            changed = connection.execute(
                "UPDATE brain.tool_servers SET sealed = %s WHERE tenant_id = %s AND id = %s AND sealed = %s",
                (Jsonb(sealed), one["tenant_id"], one["id"], Jsonb(one["sealed"])),
            )
            return changed.rowcount == 1

        return f"the secret of the server of tools {one['id']}", seal_name(one["id"], one["url"]), one["sealed"], put

    return [row(one) for one in found]


def _catalogue_sources(connection: psycopg.Connection[dict[str, Any]]) -> list[Row]:
    found = connection.execute(
        "SELECT tenant_id, url, sealed FROM brain.catalogue_sources WHERE sealed IS NOT NULL"
    ).fetchall()

    def row(one: dict[str, Any]) -> Row:
        def put(sealed: dict[str, str]) -> bool:
            changed = connection.execute(
                "UPDATE brain.catalogue_sources SET sealed = %s WHERE tenant_id = %s AND sealed = %s",
                (Jsonb(sealed), one["tenant_id"], Jsonb(one["sealed"])),
            )
            return changed.rowcount == 1

        name = catalogue_sources.seal_name(one["tenant_id"], one["url"])
        return f"the secret of the catalogue of {one['tenant_id']}", name, one["sealed"], put

    return [row(one) for one in found]


def _count_keys(connection: psycopg.Connection[dict[str, Any]], keys: MasterKeys, found: Resealed) -> None:
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE length(hash) > 32 AND substring(hash FROM 33) <> %s) AS old,"
        " count(*) FILTER (WHERE length(hash) <= 32) AS bare FROM brain.api_keys"
        " WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
        (pepper_name(keys.derived(API_KEYS)[0]),),
    ).fetchone()
    assert row is not None
    found.old_keys, found.bare_keys = row["old"], row["bare"]


def _subscribers(connection: psycopg.Connection[dict[str, Any]]) -> list[Row]:
    """The secrets of webhooks and channels, and those that they replaced."""

    def row(table: Table[Any], column: str, one: dict[str, Any]) -> Row:
        def put(sealed: dict[str, str]) -> bool:
            changed = connection.execute(
                f"UPDATE brain.{table.name} SET {column} = %s WHERE tenant_id = %s AND id = %s AND {column} = %s",
                (Jsonb(sealed), one["tenant_id"], one["id"], Jsonb(one["sealed"])),
            )
            return changed.rowcount == 1

        return f"the secret of {table.what} {one['id']}", sealed_as(table.what, one["id"]), one["sealed"], put

    found: list[Row] = []
    for table in (WEBHOOKS, CHANNELS):
        for column in ("secret", "secret_before"):
            rows = connection.execute(
                f"SELECT tenant_id, id, {column} AS sealed FROM brain.{table.name} WHERE {column} IS NOT NULL"
            ).fetchall()
            found += [row(table, column, one) for one in rows]
    return found

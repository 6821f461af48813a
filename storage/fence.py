"""After a database was put back to an earlier moment: nobody who owned a conversation before may write to it now."""

from typing import Any

import psycopg


def fence(admin_url: str) -> int:
    """Take every conversation from its owner; gives how many had one. The next activation takes up unfinished turns.

    An epoch alone does not tell an owner of the lost time from a new one: the restored number is counted up again.
    The outbox goes on at the moment's microseconds, so that no event repeats an id that was delivered.
    """
    with psycopg.connect(admin_url) as connection:
        return fence_within(connection)


def fence_within(connection: psycopg.Connection[Any]) -> int:
    """The same as a part of the connection's transaction."""
    owned = connection.execute(
        "UPDATE brain.conversations SET activation = NULL, host = NULL WHERE activation IS NOT NULL OR host IS NOT NULL"
    ).rowcount
    connection.execute("DELETE FROM brain.hosts")
    _forget_vectors(connection)
    _end_sign_ins(connection)
    _do_nothing_twice(connection)
    connection.execute(
        "SELECT setval(s, greatest(nextval(s), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint))"
        " FROM (SELECT pg_get_serial_sequence('brain.outbox', 'id')::regclass AS s) AS sequence"
    )
    return owned


def _end_sign_ins(connection: psycopg.Connection[Any]) -> None:
    """Some of them were ended in the lost time, and nobody knows which: users sign in again. Replicas that live on are
    told that everything may have changed."""
    if connection.execute("SELECT to_regclass('brain.sessions')").fetchone() == (None,):
        return
    connection.execute("UPDATE brain.sessions SET revoked_at = clock_timestamp() WHERE revoked_at IS NULL")
    connection.execute("UPDATE brain.users SET tokens_from = clock_timestamp()")
    connection.execute(
        "UPDATE brain.access_version SET version = greatest(version, (extract(epoch FROM now()) * 1000)::bigint) + 2000"
    )


def _do_nothing_twice(connection: psycopg.Connection[Any]) -> None:
    """What was about to be done may have been done in the lost time. A tool that may not be called twice is not called;
    events of the last day go out with the ids that they had, by which receivers know them, and for a day from now;
    older ones, whose ids nobody need remember, do not."""
    if connection.execute("SELECT to_regclass('brain.tool_calls')").fetchone() != (None,):
        connection.execute(
            "UPDATE brain.tool_calls SET state = 'unknown', ended_at = clock_timestamp()"
            " WHERE state IN ('planned', 'started') AND NOT repeatable"
        )
    if connection.execute("SELECT to_regclass('brain.deliveries')").fetchone() == (None,):
        return
    connection.execute(
        "UPDATE brain.outbox SET confirmed = array_append(confirmed, 'deliveries')"
        " WHERE NOT (confirmed @> '{deliveries}') AND created_at < clock_timestamp() - interval '1 day'"
    )
    connection.execute(
        "UPDATE brain.deliveries SET status = 'failed', ended_at = clock_timestamp(), next_at = NULL,"
        " error = coalesce(error, 'the database was put back: it may have been delivered')"
        " WHERE status = 'waiting' AND created_at < clock_timestamp() - interval '1 day'"
    )
    connection.execute(
        "UPDATE brain.deliveries SET first_tried_at = NULL WHERE status = 'waiting' AND first_tried_at IS NOT NULL"
    )


def _forget_vectors(connection: psycopg.Connection[Any]) -> None:
    """Vectors are kept elsewhere and are of another moment: the service makes a new space of what is here now."""
    connection.execute("DELETE FROM brain.outbox_claims")
    connection.execute(
        "UPDATE brain.vector_spaces SET state = 'retired', retired_at = clock_timestamp() WHERE state <> 'retired'"
    )

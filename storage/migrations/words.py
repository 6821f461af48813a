"""Words of messages that were confirmed before there was a table for them: filled in while turns go on.

The index is built last. Until it is there, words are looked up in the messages themselves.
"""

from typing import Any

import psycopg

TABLE, INDEX = "message_words", "message_words_found"
BEFORE = "messages_words"  # the index of earlier schemas, which every turn had to keep
PAGE = 1_000  # messages
_PAGE = """
WITH page AS MATERIALIZED (
    SELECT m.tenant_id, m.id, m.content FROM brain.messages m WHERE (m.tenant_id, m.id) > (%(tenant)s, %(message)s)
        ORDER BY m.tenant_id, m.id LIMIT %(limit)s FOR KEY SHARE),
kept AS (
    INSERT INTO brain.message_words (tenant_id, message_id, words)
        SELECT p.tenant_id, p.id, brain.words(p.tenant_id, p.content) FROM page p
            WHERE NOT EXISTS (SELECT FROM brain.message_words w WHERE w.tenant_id = p.tenant_id AND w.message_id = p.id)
        ON CONFLICT DO NOTHING)
SELECT tenant_id, id FROM page ORDER BY tenant_id DESC, id DESC LIMIT 1
"""
ALL = """
INSERT INTO brain.message_words (tenant_id, message_id, words)
    SELECT m.tenant_id, m.id, brain.words(m.tenant_id, m.content) FROM brain.messages m
    ON CONFLICT DO NOTHING"""


def fill(connection: psycopg.Connection[Any]) -> None:
    """Page by page; each is a transaction of its own where the connection is in none."""
    place: tuple[Any, ...] | None = ("", "")
    while place is not None:
        place = connection.execute(_PAGE, {"tenant": place[0], "message": place[1], "limit": PAGE}).fetchone()

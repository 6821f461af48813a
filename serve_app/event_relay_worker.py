"""The relay of events as it works in a replica, with its figures for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from serve_app.event_relay import EventRelay
from serve_app.settings import Settings
from storage.event_log import PostgresEventLog
from storage.event_streams import Bounds, EventStreams
from storage.event_topics import PostgresTopics
from storage.postgres import Pool
from storage.redis import open_redis


def event_relay(settings: Settings, pool: Pool, registry: CollectorRegistry) -> EventRelay:
    bounds = Bounds(settings.events_kept, settings.events_topic_kept)
    streams = EventStreams(open_redis(settings.required("redis_url")), bounds)
    relay = EventRelay(PostgresEventLog(pool), streams, PostgresTopics(pool), settings.events_republish_s)
    for name, text, value in _figures(relay):
        Gauge(name, text, registry=registry).set_function(value)
    return relay


def _figures(relay: EventRelay) -> list[tuple[str, str, Callable[[], float]]]:
    figures = relay.figures
    return [
        ("brain_relay_lag_rows", "Rows of the outbox that are not published", lambda: figures.lag.waiting),
        ("brain_relay_lag_seconds", "Age of the oldest of these", lambda: figures.lag.seconds),
        ("brain_relay_leading", "1 where this relay works", lambda: float(figures.leading)),
        ("brain_relay_rows", "Rows published since the start", lambda: figures.rows),
        ("brain_relay_events", "Events published since the start", lambda: figures.events),
        ("brain_relay_entries", "Entries of streams written since the start", lambda: figures.entries),
        ("brain_relay_redis_lost", "Times that Redis had lost its data", lambda: figures.lost),
        ("brain_relay_failures", "Times that events could not be published", lambda: figures.failures),
        (
            "brain_relay_dead_letters",
            "Events that groups of topics gave up",
            lambda: figures.dead,
        ),
    ]

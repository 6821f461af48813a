"""The ingress' own measurements, for Prometheus. No label names a tenant or an id."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

REQUESTS = Counter("brain_http_requests", "Answered requests.", ("method", "route", "status"), registry=REGISTRY)
LATENCY = Histogram(
    "brain_http_request_seconds",
    "From a request's arrival to the end of its answer.",
    ("method", "route"),
    buckets=_SECONDS,
    registry=REGISTRY,
)
OPEN_STREAMS = Gauge("brain_http_open_streams", "Server-sent event streams being written.", registry=REGISTRY)
FIRST_DELTA = Histogram(
    "brain_http_first_delta_seconds",
    "From a request's arrival to the first text of its stream.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
OPEN_SOCKETS = Gauge("brain_sockets_open", "Open WebSockets.", registry=REGISTRY)
SOCKET_FRAMES = Counter("brain_socket_frames", "Frames over WebSockets: in or out.", ("direction",), registry=REGISTRY)
SOCKET_CLOSES = Counter("brain_socket_closes", "Closed WebSockets, by the code.", ("code",), registry=REGISTRY)
SOCKET_OVERFLOWS = Counter(
    "brain_socket_overflows", "WebSockets closed because their client read too slowly.", registry=REGISTRY
)
SLOW_READERS = Counter(
    "brain_http_slow_readers_dropped", "Streams ended because their reader was too slow.", registry=REGISTRY
)
REFUSED = Counter("brain_admission_refused", "Turns and completions refused because too many wait.", registry=REGISTRY)
LIMIT = Gauge("brain_admission_limit", "Turns that may run at once, at the last refusal.", registry=REGISTRY)

LIMITED = Counter(
    "brain_limit_refused", "Requests refused by a limit, by whose it is.", ("subject", "kind"), registry=REGISTRY
)
LIMITS_ALONE = Counter(
    "brain_limits_alone", "Times that Redis was lost and limits became each replica's share.", registry=REGISTRY
)


def render() -> str:
    """This process' measurements as Prometheus text."""
    return generate_latest(REGISTRY).decode()

"""What one replica's calls of models come to, for Prometheus. Labels are those of the catalog, never of tenants."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from deployments.hosted_llm import HostedLLM
from domain.circuit import State
from domain.generation import Attempt, Outcome
from domain.model import Route

STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
FIRST_TOKEN = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 60)
WAITED = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30)


class GenerationMetrics:
    """Counts outcomes and the calls in them. Ids that a pattern allows are counted together, as the pattern."""

    def __init__(self, llm: HostedLLM, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._llm = llm
        self._outcomes = counter("brain_generations", "Generations by model and ending", "model", "ending")
        self._tokens = counter("brain_tokens", "Tokens by model and kind", "model", "kind")
        self._calls = counter(
            "brain_provider_calls", "Calls of providers by how they ended and why", "provider", "model", "status", "why"
        )
        self._hedges = counter("brain_hedges_won", "Second calls that answered first", "model")
        self._continued = counter("brain_continuations", "Answers taken up again in the middle", "model", "why")
        self._pauses = counter("brain_rate_limit_pauses", "Times that a provider wanted no calls", "provider", "model")
        self._first = Histogram(
            "brain_provider_first_token_seconds",
            "Time from the call of a provider to its first token",
            ["provider", "model"],
            buckets=FIRST_TOKEN,
            registry=registry,
        )
        self._waited = Histogram(
            "brain_provider_wait_seconds",
            "Time that calls waited for a place at their provider",
            ["provider"],
            buckets=WAITED,
            registry=registry,
        )
        Gauge("brain_generations_running", "Generations under way", registry=registry).set_function(lambda: llm.running)
        registry.register(_Now(llm))
        llm.policies.limits.paused = self._paused

    def told(self, outcome: Outcome) -> None:
        model = self._entry(outcome.model)
        self._outcomes.labels(model, outcome.ending).inc()
        if outcome.usage is not None:
            self._tokens.labels(model, "prompt").inc(outcome.usage.prompt_tokens)
            self._tokens.labels(model, "completion").inc(outcome.usage.completion_tokens)
        for attempt in outcome.attempts:
            self._call(attempt)

    def _call(self, attempt: Attempt) -> None:
        model = self._entry(attempt.model)
        self._calls.labels(attempt.provider, model, attempt.status, attempt.why).inc()
        self._waited.labels(attempt.provider).observe(attempt.waited_ms / 1000)
        if attempt.first_token_ms is not None:
            self._first.labels(attempt.provider, model).observe(attempt.first_token_ms / 1000)
        if attempt.why == "hedge" and attempt.reply:
            self._hedges.labels(model).inc()
        if attempt.why in ("continued", "reattached"):
            self._continued.labels(model, attempt.why).inc()

    def _entry(self, model: str | None) -> str:
        route = self._llm.catalog.find(model) if model else None
        return route.model.id if route else "none"

    def _paused(self, route: Route) -> None:
        self._pauses.labels(route.provider.name, route.model.id).inc()


class _Now(Collector):
    """What is so at the moment of a scrape."""

    def __init__(self, llm: HostedLLM) -> None:
        self._llm = llm

    def collect(self) -> Iterator[Metric]:
        policies = self._llm.policies
        waiting = GaugeMetricFamily("brain_provider_waiting", "Calls that wait for a provider", labels=["provider"])
        for provider, number in policies.at_most.waiting.items():
            waiting.add_metric([provider], number)
        yield waiting
        text = "Circuit breakers: 0 closed, 1 half-open, 2 open (the worst of the ids under a pattern)"
        breakers = GaugeMetricFamily("brain_breaker_state", text, labels=["provider", "model"])
        for (provider, model), state in policies.circuits.states().items():
            breakers.add_metric([provider, model], STATES[state])
        yield breakers

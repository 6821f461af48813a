"""The mock models: how long a replica of each kind takes, how much it takes at once, what it costs.

A replica does two things with a request. First what it does for several together, one group after the other (a vLLM
prefill, an embedder's batch, the handling of a call by a Python process): `fixed_s` a group and `per_token_s` for each
token of its prompts. Then what it does for all at once (a decode, a stream that is passed on): `before_s` and
`answer_s` for each token, of which every further request slows the others by `slope`, and which nobody gets faster
than `full_speed` of them share.
"""

from dataclasses import dataclass

CPU_HOUR, GPU_HOUR = 0.04, 0.80  # USD, about what clouds ask on demand for a vCPU, and for a node with one L4


@dataclass(frozen=True, slots=True)
class MockModel:
    """One kind of deployment. Times in seconds; `cache`: tokens that the running requests may hold together."""

    kind: str
    deployment: str
    times: int
    """How many services of the trace's size it serves."""
    start_s: float
    usd_hour: float
    together: int = 1
    fixed_s: float = 0.0
    per_token_s: float = 0.0
    prompt_share: float = 1.0
    longest: int = 1_000_000
    before_s: float = 0.0
    answer_s: float = 0.0
    slope: float = 0.0
    full_speed: float = float("inf")
    running: int = 1_000_000
    """Requests that it works on; what it accepted beyond that waits inside."""
    cache: int = 1_000_000_000
    silence_s: float = 0.0
    """After the trace, as a day has working hours and others."""
    sessions: bool = False
    """Routed by session: to one replica, whatever waits there. Else to the less busy one of two."""

    def prompt_tokens(self, tokens: int) -> int:
        return min(self.longest, max(1, round(tokens * self.prompt_share)))

    def alone_s(self, prompt: int) -> float:
        """From arrival to the first token or the answer, on an idle replica."""
        return self.fixed_s + prompt * self.per_token_s

    def speed(self, others: int) -> float:
        """Of each of `others` that run together, as a share of the speed alone."""
        return min(1 / (1 + self.slope * (others - 1)), self.full_speed / others)


MODELS = {
    # The process that passes streams on: 2.8 ms of CPU a generation and 28 to 93 µs a token were measured (2-core AMD
    # EPYC, 100 to 400 streams of 50 tokens/s), and a call between deployments costs 3.5 ms over both sides.
    "hosted": MockModel(
        kind="hosted",
        deployment="HostedLLM",
        times=24,
        start_s=6,
        usd_hour=0.5 * CPU_HOUR,
        fixed_s=0.004,
        before_s=0.5,
        answer_s=1 / 50,
        full_speed=600,
        running=512,
        sessions=True,
    ),
    # An 8-billion-parameter model in bfloat16 on one L4: 300 GB/s read 16 GB of weights in 53 ms, so 19 tokens/s alone;
    # half of its 121 TFLOP/s at 16 GFLOP a token gives 3,800 prompt tokens/s; 5 GB hold 40,000 tokens of cache, and
    # reading 1,300 of them adds 1 % to a step. Two of the trace's prompts fill a chunk of 2,048 tokens. Start: weights
    # from the node's disk, compilation, graphs.
    "vLLM": MockModel(
        kind="vLLM",
        deployment="",
        times=1,
        start_s=120,
        usd_hour=GPU_HOUR,
        together=2,
        fixed_s=0.05,
        per_token_s=1 / 3800,
        answer_s=0.053,
        slope=0.01,
        running=128,
        cache=40_000,
        silence_s=2 * 3600,
    ),
    # MiniLM on two cores: 272 sentences/s in batches were measured for sentences of 12 tokens, 20 ms for a single one.
    # A message is taken as a sixteenth of the trace's prompt, which holds the conversation.
    "embedder": MockModel(
        kind="embedder",
        deployment="Embedder",
        times=24,
        start_s=15,
        usd_hour=2 * CPU_HOUR,
        together=64,
        fixed_s=0.008,
        per_token_s=0.0003,
        prompt_share=1 / 16,
        longest=256,
    ),
    # Its own work is a call, a matrix product and the wait for the embedder.
    "classifier": MockModel(
        kind="classifier",
        deployment="IntentClassifier",
        times=24,
        start_s=8,
        usd_hour=0.5 * CPU_HOUR,
        fixed_s=0.005,
        before_s=0.03,
    ),
}

"""What a generation leaves behind whose process has died: text to go on from, and calls to be charged for."""

from actors.run import TurnRun
from domain.context import estimate_tokens
from domain.events import CANDIDATE_DELTA, DELTA, MODEL
from domain.generation import Why
from domain.ledger import Charge
from domain.message import Usage
from domain.ports import Progress
from domain.turn import MAX_ATTEMPTS


def text_of(progress: Progress) -> str:
    return "".join(event.data["text"] for event in progress.events if event.type == DELTA)


def _text_of_generation(progress: Progress) -> str:
    """What the generation said that is the journal's last: those before it have ended with calls of tools."""
    after = progress.rounds[-1].n if progress.rounds else 0
    return "".join(event.data["text"] for event in progress.events if event.type == DELTA and event.n > after)


def continues(run: TurnRun, progress: Progress) -> bool:
    """Whether the attempt may go on from the text that its journal holds: its model allows it, nothing is missing, and
    the text is no JSON, of which each answer is a whole one.

    What was gone on from counts as an attempt.
    """
    live = run.live
    if live.cancelled or live.asked.models or live.attempt + live.continued >= MAX_ATTEMPTS:
        return False
    if (live.asked.parameters.get("response_format") or {}).get("type", "text") != "text":
        return False
    route = run.parts.catalog.find(_model(progress) or "")
    whole = [event.n for event in progress.events] == list(range(1, len(progress.events) + 1))
    return route is not None and route.model.continues and whole and bool(_text_of_generation(progress))


def take_up(run: TurnRun, progress: Progress) -> None:
    """Make the lost text the beginning of the attempt's answer."""
    live = run.live
    live.calls = (*live.calls, *_charges(run, progress, len(live.said_so_far), reply=True))
    live.continued += 1
    live.prefix = _text_of_generation(progress)
    live.spoken = {event.n: len(event.data["text"]) for event in progress.events if event.type == DELTA}
    live.n = progress.events[-1].n


def lost_calls(run: TurnRun, progress: Progress | None) -> tuple[Charge, ...]:
    """What an attempt without an end is charged for."""
    live = run.live
    return (*live.calls, *(_charges(run, progress, len(live.said_so_far), reply=False) if progress else ()))


def _charges(run: TurnRun, progress: Progress, known: int, reply: bool) -> tuple[Charge, ...]:
    """The estimated calls of a process that died: the prompt, and the text that it said after `known` characters."""
    model, first = _model(progress), len(run.live.calls) + 1
    if run.live.asked.models:
        said = _sides(progress)
        return tuple(_charge(run, call, one, said[one], "side", reply) for call, one in enumerate(said, first))
    text = text_of(progress)[known:]
    if not text or model is None:
        return ()
    return (_charge(run, first, model, text, "continued" if run.live.prefix else "first", reply),)


def _charge(run: TurnRun, call: int, model: str, text: str, why: Why, reply: bool) -> Charge:
    route = run.parts.catalog.find(model)
    prompt, completion = run.prompt_tokens() + estimate_tokens(run.live.prefix), estimate_tokens(text)
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
    cost = route.model.cost_usd(usage) if route else None
    provider = route.provider.name if route else None
    return Charge(call, model, provider, why, usage, cost, estimated=True, reply=reply)


def _sides(progress: Progress) -> dict[str, str]:
    """What each of the models said that answered side by side."""
    said: dict[str, str] = {}
    for event in progress.events:
        if event.type == CANDIDATE_DELTA:
            model = str(event.data["model"])
            said[model] = said.get(model, "") + str(event.data["text"])
    return said


def _model(progress: Progress) -> str | None:
    """The model that the attempt has named last."""
    named = [str(event.data["model"]) for event in progress.events if event.type == MODEL]
    return named[-1] if named else None

"""An answer beside the catalogue: which products it names, and whether what it says of them is so."""

import time
from dataclasses import replace

from actors.products import Message, look_up
from actors.run import TurnRun
from domain.claims import CORRECTION, Checked, check, named
from domain.errors import JournalUnavailable
from domain.events import DELTA, Layout
from domain.generation import Outcome
from domain.product_facts import citation


async def checked(run: TurnRun, outcome: Outcome) -> Outcome:
    """The outcome with a correction behind its text where the tenant wants it and something is wrong; what was found
    becomes the turn's citations and stands in its trace."""
    products = run.products
    if products is None or outcome.ending == "failed" or not outcome.text:
        _trace(run, None)
        return outcome
    policy, began = run.window.tenant.product_claims, time.monotonic()
    rows = products.seen.products
    if policy == "off" or products.problem is not None:
        run.citations = [citation(one) for one in named(outcome.text, rows)]
        _trace(run, None)
        return outcome
    found = check(outcome.text, rows, run.live.asked.user_message.content)
    run.citations = [citation(one) for one in found.named]
    corrected = CORRECTION in outcome.text
    if found.correction and policy == "correct" and outcome.ending == "completed" and not corrected:
        outcome, corrected = await _corrected(run, outcome, found.correction)
    run.marks["claims_ms"] = (time.monotonic() - began) * 1000
    _trace(run, found, corrected)
    return outcome


async def taken_over(run: TurnRun, outcome: Outcome, layout: Layout | None) -> tuple[Outcome, Layout | None]:
    """The same for an answer that was not heard from who was asked for it: it is followed, or was asked for by an
    earlier owner, whose products went with it and are looked up again.

    A correction that it has said already stands in the text.
    """
    live = run.live
    if run.parts.products is None or outcome.ending != "completed":
        return outcome, layout
    if run.products is None:
        run.window.tenant = await run.parts.tenants.settings(run.key.tenant)
        asked, history = live.asked, run.window.before(live.asked.order)
        message = Message.of(asked.user_message.content, asked.order, history, live.understood)
        run.products = await look_up(run.parts, run.key, message, run.parts.limits.products_timeout)
    whole = await checked(run, outcome)
    added = len(whole.text) - len(outcome.text)
    return whole, [*layout, added] if added and layout is not None else layout


async def said_since(run: TurnRun, outcome: Outcome) -> Outcome:
    """The outcome with what an earlier owner has added in the journal behind the generation's own text."""
    last = max((n for n, _ in outcome.deltas), default=0)
    if run.parts.products is None or not last:
        return outcome
    try:
        progress = await run.parts.journal.progress(run.key.tenant, run.live.id, run.live.attempt, run.epoch)
    except JournalUnavailable:
        return outcome
    added = [event for event in progress.events if event.type == DELTA and event.n > last]
    for event in added:
        run.live.note(event.n, [(DELTA, {"text": event.data["text"]})])
    return replace(outcome, text=outcome.text + "".join(event.data["text"] for event in added))


async def _corrected(run: TurnRun, outcome: Outcome, correction: str) -> tuple[Outcome, bool]:
    """Say the correction as a delta behind all others, so that what was streamed is what is stored. Where the stream
    has lost some of them it cannot follow, and is left out; a turn that no journal holds has it in its text alone."""
    live = run.live
    recorded = sum(live.spoken.values()) + sum(length for _, length in outcome.deltas)
    if live.n > 0 and recorded < len(outcome.text):
        return outcome, False
    if live.n > 0:
        live.n = max([live.n, *(n for n, _ in outcome.deltas)])
        before, unsure = live.n, len(live.unanswered)
        await run.say([(DELTA, {"text": correction})])
        if live.n == before and len(live.unanswered) == unsure:
            return outcome, False
    return replace(outcome, text=outcome.text + correction), True


def _trace(run: TurnRun, found: Checked | None, corrected: bool = False) -> None:
    products = run.products
    if products is None:
        return
    told = products.told()
    if found is not None:
        told["claims"] = {
            "policy": run.window.tenant.product_claims,
            "checked": found.claims,
            "wrong": [one.told() for one in found.wrong],
            "corrected": corrected,
        }
    cited = [str(one["id"]) for one in run.citations]
    run.told |= {"products": told, "sources": products.sources(cited)}

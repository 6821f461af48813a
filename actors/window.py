"""The hot context of a conversation: the messages that a prompt may tell, what stands for those before them, and which
model has read how much of it."""

from collections.abc import Sequence

from domain.context import ESTIMATE, MESSAGE_OVERHEAD, Prompt, Remembered, Summary, TokenCounter
from domain.context.told import NOTHING, Told
from domain.conversation import Conversation
from domain.tenant_settings import TenantSettings

BASE, EACH = 2000, 200  # bytes of bookkeeping, estimates


class Window:
    """`start`: the first order that is told. `model`: whose reply was the last one, which was given the prompt of order
    `read` under the `system` prompt of then, with the text `told` before its history (None: another owner's, which is
    taken for the same); `bare`: as in `Prompt`.

    `tenant`: what the conversation's tenant was set to when it was last looked at.

    `summary`: of all turns before `start`, unless there is a `gap`; `kept`: the one of them that is stored.
    """

    __slots__ = (
        *("bare", "conversation", "gap", "kept", "messages", "model", "read", "size", "start", "summary", "system"),
        *("tenant", "told"),
    )

    def __init__(
        self,
        conversation: Conversation,
        start: int,
        messages: Sequence[Remembered],
        model: str | None = None,
        summary: Summary | None = None,
        tenant: TenantSettings | None = None,
    ) -> None:
        self.conversation, self.start, self.messages = conversation, start, list(messages)
        self.tenant = tenant or TenantSettings()
        self.model, self.system = model, self.instructions
        self.read = max((message.order for message in messages if message.role == "assistant"), default=0)
        self.told: str | None = None
        self.bare = True
        self.summary = self.kept = summary or Summary()
        self.gap = start > self.summary.seq + 1  # or so it seems: a number may be unused
        self._measure()

    @property
    def instructions(self) -> str | None:
        """The system prompt of its prompts: the tenant's, then the conversation's own."""
        return self.tenant.instructions(self.conversation.system_prompt)

    def asked(self, seq: int, content: str) -> None:
        self._add(Remembered.of(seq, seq, "user", content))

    def noted(self, seq: int, content: str) -> None:
        """Take in a system message, which belongs to no turn: its place is its own number. Once, however often."""
        if all(message.seq != seq for message in self.messages):
            self._add(Remembered.of(seq, seq, "system", content))

    def replied(self, order: int, seq: int, content: str, model: str | None, whole: bool) -> None:
        """Take in a reply, in the place of an earlier one to the same message if it is `whole`."""
        if order < self.start:
            return
        earlier = [message for message in self.messages if message.order == order and message.role == "assistant"]
        if earlier and not whole:
            return
        for message in earlier:
            self.messages.remove(message)
            self.size -= EACH + len(message.content)
        self._add(Remembered.of(order, seq, "assistant", content))
        self.model, self.read, self.system = model, order, self.instructions

    def answered(self, prompt: Prompt) -> None:
        """Remember the prompt of a reply that was taken in."""
        self.told, self.bare = prompt.told.text, prompt.bare

    def summarised(self, summary: Summary) -> None:
        self.summary = summary.since(self.start)
        self._measure()

    def forget(self, start: int, summary: Summary | None = None) -> None:
        """Let go of what no prompt will tell again. `summary`: the one that was told in its stead."""
        if start <= self.start:
            return
        self.start = start
        if summary is not None and summary.until > self.summary.until:
            self.summary = summary
        self.gap |= any(self.summary.until < message.order < start for message in self.messages)
        self.messages = [message for message in self.messages if message.order >= start]
        self.summarised(self.summary)

    def before(self, order: int) -> list[Remembered]:
        """What the prompt of the turn at `order` may tell: its message and all before it, no reply to it."""
        return [
            message
            for message in self.messages
            if message.order < order or (message.order == order and message.role == "user")
        ]

    def shared_tokens(self, start: int, order: int, told: Told = NOTHING, counter: TokenCounter = ESTIMATE) -> int:
        """Tokens at the beginning of a prompt that tells `told` and then `start` to `order` which `model` has read."""
        if self.model is None or self.system != self.instructions:
            return 0
        shared = counter.count(self.system) + MESSAGE_OVERHEAD if self.system else 0
        before = told.text if self.told is None else self.told
        if start != self.start or told.text != before:
            return shared + counter.count(_common(before, told.text))
        last = min(self.read, order)
        alone = self.bare or last < self.read
        return (
            shared
            + told.tokens
            + sum(
                message.size(counter)
                for message in self.messages
                if start <= message.order
                and (message.order < last or (message.order == last and message.role == "user" and alone))
            )
        )

    def _add(self, message: Remembered) -> None:
        self.messages.append(message)
        self.size += EACH + len(message.content)

    def _measure(self) -> None:
        told = sum(EACH + len(section.text) for section in self.summary.sections) + EACH * len(self.summary.facts)
        self.size = BASE + told + sum(EACH + len(message.content) for message in self.messages)


def _common(one: str, other: str) -> str:
    """What both texts begin with."""
    same = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[: min(len(one), len(other)) if same is None else same]

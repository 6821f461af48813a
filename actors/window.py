"""The hot context of a conversation: the messages that a prompt may tell, and which model has read how much of them."""

from collections.abc import Sequence

from domain.context import MESSAGE_OVERHEAD, Remembered, estimate_tokens
from domain.conversation import Conversation

BASE, EACH = 2000, 200  # bytes of bookkeeping, estimates


class Window:
    """`start`: the first order that is told. `model`: whose reply was the last one, which was given the prompt of order
    `read` under the `system` prompt of then."""

    __slots__ = ("conversation", "messages", "model", "read", "size", "start", "system")

    def __init__(
        self, conversation: Conversation, start: int, messages: Sequence[Remembered], model: str | None = None
    ) -> None:
        self.conversation, self.start, self.messages = conversation, start, list(messages)
        self.model, self.system = model, conversation.system_prompt
        self.read = max((message.order for message in messages if message.role == "assistant"), default=0)
        self._measure()

    def asked(self, seq: int, content: str) -> None:
        self._add(Remembered.of(seq, seq, "user", content))

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
        self.model, self.read, self.system = model, order, self.conversation.system_prompt

    def forget(self, start: int) -> None:
        """Let go of what no prompt will tell again."""
        self.start = max(self.start, start)
        if self.messages and self.messages[0].order < self.start:
            self.messages = [message for message in self.messages if message.order >= self.start]
            self._measure()

    def before(self, order: int) -> list[Remembered]:
        """What the prompt of the turn at `order` may tell: its message and all before it, no reply to it."""
        return [
            message
            for message in self.messages
            if message.order < order or (message.order == order and message.role == "user")
        ]

    def shared_tokens(self, start: int, order: int) -> int:
        """Tokens (an estimate) at the beginning of a prompt that tells `start` to `order` which `model` has read."""
        if self.model is None or self.system != self.conversation.system_prompt:
            return 0
        shared = estimate_tokens(self.system) + MESSAGE_OVERHEAD if self.system else 0
        if start != self.start:
            return shared
        last = min(self.read, order)
        return shared + sum(
            message.tokens
            for message in self.messages
            if start <= message.order and (message.order < last or (message.order == last and message.role == "user"))
        )

    def _add(self, message: Remembered) -> None:
        self.messages.append(message)
        self.size += EACH + len(message.content)

    def _measure(self) -> None:
        self.size = BASE + sum(EACH + len(message.content) for message in self.messages)

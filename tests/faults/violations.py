"""The ways in which a history can contradict every sequential conversation."""

from dataclasses import dataclass

NAMES = {
    # keys
    "key_reused": "two different requests were taken under one idempotency key",
    "retry_differs": "a repeated request was answered differently",
    "retry_refused": "a request was refused although it had been answered before under its key",
    "false_mismatch": "a key was called used with another body, but was not",
    "content_changed": "the service took another text than it was sent",
    # what is stored
    "message_lost": "a message that somebody knew of is not there",
    "message_repeated": "one message stands twice",
    "message_changed": "a message was told in two ways",
    "message_from_nowhere": "a user's message stands that nobody sent",
    "sent_twice": "a message stands more often than it was sent",
    "refused_but_there": "a message stands that was refused",
    "seq_gap": "a sequence number is missing",
    "seq_repeated": "a sequence number stands twice",
    "two_user_messages": "a turn has two user messages",
    "two_replies": "a turn has two final replies",
    "two_standing_replies": "of a message's replies not exactly one stands in prompts",
    "reply_lost": "a completed turn has no reply",
    "reply_status": "a reply has another status than its turn",
    "reply_before_message": "a reply stands before its message",
    "reply_from_nowhere": "a reply stands to nothing that was asked",
    "replies_out_of_order": "a later message was answered first",
    "never_ended": "a turn has not ended when all is quiet",
    # order in time
    "order": "a message that was known before another was sent stands after it",
    "stale_read": "a read misses what was known before it began",
    "read_gap": "a read leaves out a message",
    "read_ahead": "a read shows what had not been sent",
    # turns
    "status_fell": "a turn's status moved backwards",
    "ended_turn_changed": "a turn has ended in two ways",
    "attempt_fell": "a turn's attempt moved backwards",
    "cancel_undone": "a turn completed although its cancellation had been taken",
    # streams
    "wrong_turn": "a stream tells of another turn",
    "stream_start": "a stream does not start with the turn's first event",
    "event_gap": "a stream leaves out an event",
    "event_repeated": "a stream goes back",
    "opening_misplaced": "turn.accepted or turn.reset does not stand exactly where an attempt begins",
    "intent_repeated": "an attempt tells the intent twice",
    "event_after_end": "an event follows the end of the turn",
    "event_differs": "one event was told in two ways",
    "stream_behind": "a stream tells of an older attempt than was known when it began",
    "stream_without_end": "a stream of an ended turn stops before the turn's end",
    "stream_silent": "a stream goes on telling nothing although its turn has ended",
    "text_differs": "what was streamed is not what is stored",
    "text_not_provided": "the reply is not what the provider sent",
    # deletion
    "deleted_came_back": "a conversation is there after its deletion",
    "conversation_lost": "a conversation is gone that nobody deleted",
    "turn_lost": "a turn is gone that nobody deleted",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """`name` is one of `NAMES`; `sentence` says what happened; `operations` are those concerned, by number."""

    name: str
    sentence: str
    operations: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"there is no violation {self.name!r}")

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence} (operations {', '.join(map(str, self.operations)) or 'unknown'})"

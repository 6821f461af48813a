"""What the model is told: a prompt within a budget of tokens, whose beginning stays the same from turn to turn."""

from domain.context.facts import Fact, facts_in
from domain.context.material import Exchange, Material
from domain.context.prompt import Prompt, build_prompt
from domain.context.remembered import Remembered
from domain.context.summary import Section, Summary
from domain.context.tokens import ESTIMATE, MESSAGE_OVERHEAD, TokenCounter, estimate_tokens

__all__ = [
    "ESTIMATE",
    "MESSAGE_OVERHEAD",
    "Exchange",
    "Fact",
    "Material",
    "Prompt",
    "Remembered",
    "Section",
    "Summary",
    "TokenCounter",
    "build_prompt",
    "estimate_tokens",
    "facts_in",
]

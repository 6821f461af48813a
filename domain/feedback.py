"""What somebody thought of an answer."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel


class Feedback(BaseModel):
    """`score` in [0, 1]: 1 is an answer that did, 0 one that did not."""

    object: Literal["message.feedback"] = "message.feedback"
    message_id: str
    score: float
    comment: str | None = None
    created_at: datetime
    updated_at: datetime

"""`brain chat`: lines of a person to a running service, and its answers as they are written."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

from domain.events import Event
from domain.model import AUTO
from serve_app.cli.chat_answer import Answer
from serve_app.cli.chat_client import Client
from serve_app.cli.chat_screen import Screen
from serve_app.embedded.refusal import Refusal

HELP = """\
/new           begin another conversation     /history   show the last messages
/model [NAME]  show or choose the model       /cancel    cancel the last message's turn
/help          this list                      Ctrl-C     cancels an answer; at the prompt it leaves, as Ctrl-D does
"""


def chat(url: str, api_key: str, conversation: str | None, model: str, history: Path | None = None) -> bool:
    """Talk until the user leaves; whether every message got its reply. Raises `Refusal`, and KeyboardInterrupt where
    Ctrl-C ended a pipe."""
    screen = Screen(history)
    talk = Chat(Client(url, api_key, screen.note), screen, conversation, model)
    with asyncio.Runner() as runner:
        try:
            runner.run(talk.start())
            while (line := _line(screen)) is not None:
                runner.run(talk.hear(line.strip()))
                if talk.interrupted and not screen.interactive:
                    raise KeyboardInterrupt
        finally:
            screen.close()
            runner.run(talk.stop())
    return talk.well


def _line(screen: Screen) -> str | None:
    if not screen.interactive:
        return screen.ask()
    with suppress(KeyboardInterrupt):
        return screen.ask()
    return None


class Chat:
    """One person's talk. `well`: no turn has failed so far; `interrupted`: Ctrl-C was pressed in the last answer."""

    def __init__(self, client: Client, screen: Screen, conversation: str | None, model: str) -> None:
        self._client, self._screen = client, screen
        self._conversation, self._model = conversation, model
        self._turn: str | None = None
        self.well, self.interrupted = True, False

    async def start(self) -> None:
        """Connect, and show where the conversation stands; an answer under way is followed to its end."""
        await self._client.open()
        models = await self._client.models()
        if self._model != AUTO:
            await self._client.check_model(self._model)
        self._screen.aside(f"{self._client.url}, model {self._model} (of {', '.join([AUTO, *models])}); /help for help")
        if self._conversation is not None:
            for message in await self._recent():
                self._turn = message["turn_id"]
            if self._turn and (await self._client.turn(self._turn))["status"] in ("queued", "running"):
                await self._answer(self._client.follow(self._turn))

    async def stop(self) -> None:
        await self._client.close()
        if self._conversation is not None:
            self._screen.aside(f"brain chat --conversation {self._conversation} goes on with this conversation")

    async def hear(self, line: str) -> None:
        """One line of the user. At a prompt, what cannot be done is told; in a pipe it ends the chat."""
        if not line:
            return
        try:
            await (self._command(line) if line.startswith("/") else self._say(line))
        except Refusal as refusal:
            if not self._screen.interactive:
                raise
            self._screen.error(str(refusal))

    async def _say(self, content: str) -> None:
        if self._conversation is None:
            self._conversation = await self._client.create_conversation()
        self._turn = None
        await self._answer(self._client.send(self._conversation, content, self._model))

    async def _answer(self, stream: AsyncGenerator[Event, None]) -> None:
        answer = Answer(self._screen, self._client.cancel, self._turn)
        try:
            await answer.show(stream)
        finally:
            self._turn = answer.turn_id
            self.interrupted = answer.interrupts > 0
            self.well = self.well and not answer.failed

    async def _command(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        if name == "/new":
            self._conversation = self._turn = None
            self._screen.note("a new conversation begins with the next message")
        elif name == "/history":
            await self._recent()
        elif name == "/cancel":
            if self._turn is None:
                raise Refusal("there is nothing to cancel")
            self._screen.note(f"the last turn is {(await self._client.cancel(self._turn))['status']}")
        elif name == "/model":
            await self._choose(argument)
        elif name == "/help":
            self._screen.text(HELP)
        else:
            raise Refusal(f"there is no command {name}; /help lists them")

    async def _choose(self, model: str) -> None:
        if not model:
            known = ", ".join([AUTO, *await self._client.models()])
            self._screen.note(f"model {self._model}; there are {known}")
            return
        if model != AUTO:
            await self._client.check_model(model)
        self._model = model
        self._screen.note(f"model {model}")

    async def _recent(self) -> list[dict[str, Any]]:
        if self._conversation is None:
            return []
        found = await self._client.recent(self._conversation)
        for message in found:
            self._screen.message(message)
        return found

"""What two hosts do against each other: small enough that every order can be tried, and one that is not."""

from domain.errors import Fenced
from tests.faults.hosts import Host
from tests.faults.interleaving import Move
from tests.faults.play import Game


async def activates(host: Host) -> None:
    await host.activate()


async def takes_one(host: Host) -> None:
    await host.activate()
    await host.accept("one")
    await host.finish_one()


async def takes_two(host: Host) -> None:
    """The first message is the other host's too: its client sends it again, by its key."""
    await host.activate()
    await host.accept("one")
    await host.accept("two")
    await host.finish_one()
    await host.finish_one()


async def tries_twice(host: Host) -> None:
    await host.activate()
    await host.accept("one")
    await host.begin_again()
    await host.finish_one("failed")


async def ends(host: Host) -> None:
    await host.activate()
    await host.accept("one")
    await host.end()
    await host.accept("late")


async def deletes(host: Host) -> None:
    await host.activate()
    await host.delete()


async def serves(host: Host) -> None:
    """Goes on after each refusal, as a host does whose clients repeat themselves."""
    for text in ("one", "two", "three", "four"):
        await host.serve(text)
        if text != "three":
            try:
                await host.finish_one()
            except Fenced:
                host.discard()


async def asks_once(host: Host) -> None:
    await host.serve("one", times=1)


async def asks_twice(host: Host) -> None:
    await host.serve("one", times=2)


async def asks_three(host: Host) -> None:
    for text in ("one", "two", "three"):
        await host.serve(text)


GAMES = {
    "take-over": Game({"A": takes_one, "B": takes_two}),
    "take-over of two": Game({"A": takes_two, "B": takes_two}),
    "idle successor": Game({"A": takes_two, "B": activates}),
    "second attempt": Game({"A": tries_twice, "B": takes_one}),
    "end": Game({"A": takes_two, "B": ends}),
    "deletion": Game({"A": takes_one, "B": deletes}),
    "clients": Game({"A": asks_once, "B": asks_twice}),
    "death": Game({"A": takes_one, "B": takes_one}, faults=1, mortal="A"),
}
LONG = Game({"A": serves, "B": serves}, faults=4, mortal="AB")
LONG_ACTORS = Game({"A": asks_three, "B": asks_three}, faults=3, mortal="AB", harms=(Move.CUT,))

"""What LanceDB leaves on the disk, and what several processes do to it."""

import asyncio
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from domain.errors import Unavailable
from domain.vectors import Where
from storage.vectors.lance import LanceVectors
from storage.vectors.lance_upkeep import Upkeep
from tests.storage.vectors.given import SPACE, record, unit

ROOT = Path(__file__).parents[3]
AT_ONCE = Upkeep(scalars_from=1, kept=0.001, purge_after=0)
INDEXED = Upkeep(indexed_from=300, scalars_from=1, kept=0.001, purge_after=0)
WRITER = """
import asyncio, sys
from pathlib import Path
from storage.vectors.lance import LanceVectors
from tests.storage.vectors.given import SPACE, record

async def main(folder, name, rounds):
    store = LanceVectors(Path(folder), SPACE)
    sys.stdin.readline()
    for number in range(int(rounds)):
        shared = [record(f"shared_{number}_{i}", 1, i) for i in range(5)]
        await store.upsert("tenant_a", shared + [record(f"{name}_{number}_{i}", 1, i) for i in range(5)])
        print(number, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def writer(folder: Path, name: str, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name, str(rounds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def holding(folder: Path, text: bytes) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


def as_stored(vector: list[float]) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)


async def test_two_processes_write_the_same_and_other_ids_at_once(tmp_path):
    rounds = 15
    processes = [writer(tmp_path, name, rounds) for name in ("one", "two")]
    for process in processes:
        begin(process)
    for process in processes:
        await asyncio.to_thread(process.communicate)
    assert [process.returncode for process in processes] == [0, 0]
    store = LanceVectors(tmp_path, SPACE)
    assert await store.count("tenant_a") == rounds * 15
    names = [f"{name}_{n}_{i}" for name in ("shared", "one", "two") for n in range(rounds) for i in range(5)]
    assert len(await store.fetch("tenant_a", names)) == len(names)
    found = await store.search("tenant_a", unit(1), 1_000)
    assert len(found) == len({one.id for one in found}) == len(names)


@pytest.mark.parametrize("killed_after", [0, 3, 9])
async def test_a_writer_that_is_killed_leaves_a_table_that_repeating_makes_whole(tmp_path, killed_after):
    process = writer(tmp_path, "one", 1_000)
    begin(process)
    assert process.stdout is not None
    told = [await asyncio.to_thread(process.stdout.readline) for _ in range(killed_after + 1)]
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.communicate)
    assert process.returncode == -signal.SIGKILL
    store = LanceVectors(tmp_path, SPACE)
    confirmed = [f"one_{int(line)}_{i}" for line in told for i in range(5)]
    assert len(await store.fetch("tenant_a", confirmed)) == len(confirmed)
    again = writer(tmp_path, "one", killed_after + 5)
    begin(again)
    await asyncio.to_thread(again.communicate)
    assert again.returncode == 0
    await store.optimise("tenant_a")
    wanted = [f"{name}_{n}_{i}" for name in ("one", "shared") for n in range(killed_after + 5) for i in range(5)]
    assert len(await store.fetch("tenant_a", wanted)) == len(wanted)
    found = await store.search("tenant_a", unit(1), 1_000)
    assert len(found) == len({one.id for one in found}) == await store.count("tenant_a")


@pytest.mark.parametrize("upkeep", [AT_ONCE, INDEXED], ids=["exact", "indexed"])
async def test_two_rounds_of_upkeep_remove_what_was_deleted_or_replaced_from_the_disk(tmp_path, upkeep):
    store = LanceVectors(tmp_path, SPACE, upkeep)
    values = np.random.default_rng(1).standard_normal((600, SPACE.dimensions))
    records = [record(f"identity-{n:04}", *row, user=f"person-{n:04}") for n, row in enumerate(values)]
    await store.upsert("tenant_a", records)
    await store.optimise("tenant_a")
    deleted, replaced, stays = records[100], records[200], records[300]
    assert holding(tmp_path, as_stored(deleted.vector)) and holding(tmp_path, b"identity-0100")
    await store.delete("tenant_a", [deleted.id])
    await store.upsert("tenant_a", [record(replaced.id, 1, 1, 1)])
    await store.optimise("tenant_a")
    await store.optimise("tenant_a")
    assert holding(tmp_path, as_stored(stays.vector))
    for gone in (
        as_stored(deleted.vector),
        as_stored(replaced.vector),
        b"identity-0100",
        b"person-0100",
        b"person-0200",
    ):
        assert holding(tmp_path, gone) == []
    assert await store.count("tenant_a") == 599
    assert (await store.search("tenant_a", stays.vector, 1))[0].id == stays.id
    assert not list(tmp_path.glob("*.deleted")) and not list(tmp_path.glob("*.purging"))


async def test_a_deleted_tenants_rows_leave_the_disk_at_once(tmp_path):
    store = LanceVectors(tmp_path, SPACE, INDEXED)
    values = np.random.default_rng(1).standard_normal((400, SPACE.dimensions))
    records = [record(f"identity-{n:04}", *row) for n, row in enumerate(values)]
    await store.upsert("tenant_a", records)
    await store.optimise("tenant_a")
    await store.delete_tenant("tenant_a")
    assert holding(tmp_path, as_stored(records[7].vector)) == []
    assert holding(tmp_path, b"identity-0007") == []


async def test_upkeep_that_was_killed_is_taken_up_again(tmp_path):
    store = LanceVectors(tmp_path, SPACE, AT_ONCE)
    records = [record(f"identity-{n:04}", n, 1, 2) for n in range(50)]
    await store.upsert("tenant_a", records)
    await store.delete("tenant_a", ["identity-0007"])
    (marker,) = tmp_path.glob("*.deleted")
    marker.rename(marker.with_suffix(".purging"))
    await store.optimise("tenant_a")
    await store.optimise("tenant_a")
    assert holding(tmp_path, as_stored(records[7].vector)) == []
    assert not list(tmp_path.glob("*.purging"))


async def test_an_indexed_table_keeps_deleted_rows_until_its_time(tmp_path):
    store = LanceVectors(tmp_path, SPACE, Upkeep(indexed_from=300, scalars_from=1, kept=0.001, purge_after=3_600))
    values = np.random.default_rng(1).standard_normal((400, SPACE.dimensions))
    await store.upsert("tenant_a", [record(f"identity-{n:04}", *row) for n, row in enumerate(values)])
    await store.optimise("tenant_a")
    await store.delete("tenant_a", ["identity-0007"])
    await store.optimise("tenant_a")
    (marker,) = tmp_path.glob("*.deleted")
    assert holding(tmp_path, b"identity-0007")
    os.utime(marker, (marker.stat().st_atime, marker.stat().st_mtime - 4_000))
    await store.optimise("tenant_a")
    await store.optimise("tenant_a")
    assert holding(tmp_path, b"identity-0007") == []


async def test_an_indexed_table_finds_new_rows_not_deleted_ones_and_filters_exactly(tmp_path):
    store = LanceVectors(tmp_path, SPACE, INDEXED)
    values = np.random.default_rng(2).standard_normal((500, SPACE.dimensions))
    records = [record(f"msg_{n:04}", *row, user=f"u{n % 50}") for n, row in enumerate(values)]
    await store.upsert("tenant_a", records[:400])
    await store.optimise("tenant_a")
    await store.upsert("tenant_a", records[400:])
    for one in (records[3], records[450]):
        assert (await store.search("tenant_a", one.vector, 1))[0].id == one.id
    await store.delete("tenant_a", ["msg_0003", "msg_0450"])
    question = unit(1)
    for _ in range(2):
        for user in ("u3", "u0"):
            kept = [r for r in records if r.user == user and r.id not in ("msg_0003", "msg_0450")]
            nearest = sorted(kept, key=lambda r: -float(np.dot(r.vector, question)))
            found = await store.search("tenant_a", question, 20, Where(user=user))
            assert [one.id for one in found] == [r.id for r in nearest]
        await store.optimise("tenant_a")
    await store.delete("tenant_a", [f"msg_{n:04}" for n in range(300)])
    await store.optimise("tenant_a")  # below the size of an index
    assert len(await store.search("tenant_a", question, 500)) == await store.count("tenant_a") == 199


async def test_an_index_is_made_anew_when_its_table_has_doubled(tmp_path):
    store = LanceVectors(tmp_path, SPACE, INDEXED)
    rows = np.random.default_rng(3).standard_normal((900, SPACE.dimensions))
    made_with = []
    for since, until in ((0, 299), (299, 400), (400, 700), (700, 900)):
        await store.upsert("tenant_a", [record(f"msg_{n:04}", *rows[n]) for n in range(since, until)])
        await store.optimise("tenant_a")
        made_with += [[int(path.read_text()) for path in tmp_path.glob("*.indexed")]]
    assert made_with == [[], [400], [400], [900]]
    assert await store.count("tenant_a") == 900


@pytest.mark.parametrize("text", ["it's", "' OR '1'='1", 'a"b', "back\\'", "новый 🙂", "%_", "line\nbreak", ""])
@pytest.mark.parametrize("few", [10, 2_000], ids=["by index", "exactly"])
async def test_an_indexed_search_applies_a_condition_whatever_text_it_holds(tmp_path, monkeypatch, text, few):
    monkeypatch.setattr("storage.vectors.lance_upkeep.FEW", few)
    store = LanceVectors(tmp_path, SPACE, INDEXED)
    rows = np.random.default_rng(4).standard_normal((400, SPACE.dimensions))
    await store.upsert(
        "tenant_a", [record(f"msg_{n}", *row, user=text if n < 30 else "u") for n, row in enumerate(rows)]
    )
    await store.optimise("tenant_a")
    found = await store.search("tenant_a", unit(1), 100, Where(user=text, since=0.5, other_than=text))
    assert {one.id for one in found} == {f"msg_{n}" for n in range(30)}


async def test_searches_and_writes_go_on_during_upkeep(tmp_path):
    upkeep = LanceVectors(tmp_path, SPACE, AT_ONCE)
    store = LanceVectors(tmp_path, SPACE)
    await store.upsert("tenant_a", [record(f"msg_{n}", n, 1) for n in range(200)])
    done = asyncio.Event()

    async def tend():
        for n in range(6):
            await store.delete("tenant_a", [f"msg_{n}"])
            await upkeep.optimise("tenant_a")
        done.set()

    async def use():
        rounds = 0
        while not done.is_set() or rounds < 5:
            rounds += 1
            await store.upsert("tenant_a", [record(f"new_{rounds}", rounds, 1)])
            assert len(await store.search("tenant_a", unit(0, 1), 10)) == 10
        return rounds

    _, rounds = await asyncio.gather(tend(), use())
    assert await store.count("tenant_a") == 194 + rounds


async def test_a_folder_that_cannot_be_used_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    store = LanceVectors(tmp_path / "file", SPACE)
    with pytest.raises(Unavailable, match="it is a file"):
        await store.upsert("tenant_a", [record("msg_1")])
    with pytest.raises(Unavailable, match="it is a file"):
        await store.search("tenant_a", unit(1), 1)

"""Hashes of passwords, and the limits of trying them."""

import asyncio

import pytest
from argon2 import extract_parameters
from argon2.low_level import Type

from domain.errors import Overloaded
from serve_app.ingress.errors import Problem
from serve_app.ingress.passwords import LONGEST, SHORTEST, Passwords, check_new, common
from storage.attempts import Attempts, Limit, TooManyAttempts
from storage.redis import open_redis
from tests.conftest import free_port

WEAK = {"memory_kib": 64, "passes": 1}  # fast, where the parameters are not what is tested


async def test_a_hash_is_argon2id_with_the_parameters_of_owasp_and_a_salt_of_its_own() -> None:
    passwords = Passwords()
    one, two = await passwords.hashed("correct horse"), await passwords.hashed("correct horse")
    assert one != two
    found = extract_parameters(one)
    assert (found.type, found.memory_cost, found.time_cost, found.parallelism) == (Type.ID, 19456, 2, 1)
    assert await passwords.matches("correct horse", one)
    assert not await passwords.matches("Correct horse", one)


@pytest.mark.parametrize("password", ["pass word", " lead and trail ", "ÄÖÜ🔑" * 100, "x" * LONGEST, "a\tb\nc"])
async def test_a_password_is_taken_as_it_is(password: str) -> None:
    passwords = Passwords(**WEAK)
    stored = await passwords.hashed(password)
    assert await passwords.matches(password, stored)
    for other in (password[:-1], password + " ", password.strip() + "x", password.swapcase() + "y"):
        assert not await passwords.matches(other, stored)


async def test_without_a_hash_or_with_a_broken_one_nothing_matches() -> None:
    passwords = Passwords(**WEAK)
    for stored in (None, "", "x", "$argon2id$v=19$m=64,t=1,p=1$x$y"):
        assert not await passwords.matches("nobody's", stored)


async def test_a_hash_of_other_parameters_is_outdated() -> None:
    stored = await Passwords(**WEAK).hashed("correct horse")
    assert Passwords().outdated(stored) and not Passwords(**WEAK).outdated(stored)
    assert await Passwords().matches("correct horse", stored)


async def test_many_at_once_wait_and_too_many_are_told_so() -> None:
    passwords = Passwords(at_once=1, waiting=3, **WEAK)
    found = await asyncio.gather(*(passwords.hashed("x") for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(one, str) for one in found) == 4
    assert sum(isinstance(one, Overloaded) for one in found) == 6
    assert await passwords.matches("x", await passwords.hashed("x")), "places are given back"


async def test_common_passwords_are_refused_whatever_their_case() -> None:
    assert len(common()) > 3000 and all(len(word) >= SHORTEST for word in common())
    for password in ("password1", "QWERTYUIOP", "Iloveyou1", "12345678"):
        with pytest.raises(Problem, match="most common"):
            await check_new(password, "ada@example.com")
    await check_new("correct horse battery", "ada@example.com")


@pytest.fixture(params=["redis", "away"])
async def attempts(request, redis_url):
    url = redis_url if request.param == "redis" else f"redis://127.0.0.1:{free_port()}"
    redis = open_redis(url, timeout=0.5)
    if request.param == "redis":
        await redis.flushdb()
    yield Attempts(redis)
    await redis.aclose()


async def test_attempts_over_a_limit_are_refused_with_the_time_to_wait(attempts):
    both, all_ = Limit("a:b", 2, 60, clears=True), Limit("a", 3, 30)
    await attempts.take([both, all_])
    await attempts.take([both, all_])
    with pytest.raises(TooManyAttempts) as refused:
        await attempts.take([both, all_])
    assert 30 < int(refused.value.headers["retry-after"]) <= 61
    await attempts.take([Limit("a:c", 2, 60), all_])  # the refused one was not counted
    with pytest.raises(TooManyAttempts):
        await attempts.take([Limit("a:d", 2, 60), all_])


async def test_a_success_gives_back_its_own_attempt_or_all(attempts):
    both, all_ = Limit("s:b", 2, 60, clears=True), Limit("s", 3, 60)
    for _ in range(2):
        await attempts.take([both, all_])
    await attempts.succeeded([both, all_])
    await attempts.take([both, all_])
    await attempts.take([both, all_])
    with pytest.raises(TooManyAttempts):
        await attempts.take([Limit("s:c", 2, 60), all_])


async def test_attempts_are_forgotten_after_their_time():
    now = [0.0]
    attempts, limit = Attempts(None, now=lambda: now[0]), Limit("x", 1, 10)
    await attempts.take([limit])
    with pytest.raises(TooManyAttempts):
        await attempts.take([limit])
    now[0] = 10.1
    await attempts.take([limit])

"""The web widget in a real browser, on a page of another origin than the service's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from domain.ids import new_id
from tests.conftest import wait_until
from tests.e2e.brain import Brain
from tests.pages import CHROMIUM, serving

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]
PATIENCE = 20_000  # milliseconds
SHOP = '<!doctype html><title>Shop</title><h1>Shop</h1><script src="{}/widget.js" data-channel="{}" async></script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def widget(brain: Brain, **settings: object) -> Iterator[tuple[str, str]]:
    """A widget's id, and the URL of a shop's page that has it, and may."""
    made = brain.http.post(
        "/api/v1/channels", json={"kind": "widget", "name": new_id("req"), "settings": {"origins": [], **settings}}
    )
    assert made.status_code == 201, made.text
    channel = made.json()["id"]
    with serving(SHOP.format(brain.url, channel)) as shop:
        changed = brain.http.patch(f"/api/v1/channels/{channel}", json={"settings": {"origins": [shop], **settings}})
        assert changed.status_code == 200, changed.text
        yield channel, shop


def picture(page, name: str) -> None:
    if folder := os.environ.get("BRAIN_PICTURES"):
        page.screenshot(path=f"{folder}/{name}.png")


def opened(browser, url: str):
    """A visitor's page, and the chat in its frame."""
    page = browser.new_context().new_page()
    page.goto(url)
    page.get_by_role("button", name="Chat").click()
    return page, page.frame_locator("iframe")


def say(chat, text: str) -> None:
    chat.locator("#text").fill(text)
    chat.locator("#text").press("Enter")


def test_a_visitor_asks_and_is_answered_and_finds_it_again(brain: Brain, browser) -> None:
    with widget(brain, title="Ask the shop", suggestions=["Hello"], greeting="Good day!") as (_, shop):
        page, chat = opened(browser, shop)
        chat.get_by_text("Good day!").wait_for(timeout=PATIENCE)
        chat.get_by_role("button", name="Hello").click()
        reply = chat.locator(".message.assistant:not(.waiting)")
        reply.first.wait_for(timeout=PATIENCE)
        say(chat, "<img src=x onerror=alert(1)> thank you")
        chat.get_by_text("<img src=x onerror=alert(1)> thank you").wait_for(timeout=PATIENCE)
        assert chat.locator("#log img").count() == 0
        reply.nth(1).wait_for(timeout=PATIENCE)
        picture(page, "widget")
        before = [one.inner_text() for one in chat.locator(".message").all()]
        page.reload()
        page.get_by_role("button", name="Chat").click()
        chat.locator(".message").nth(3).wait_for(timeout=PATIENCE)
        assert [one.inner_text() for one in chat.locator(".message").all()] == before
        chat.get_by_role("button", name="Start a new conversation").click()
        chat.get_by_role("button", name="Hello").wait_for(timeout=PATIENCE)
        assert chat.locator(".message").count() == 0
        page.context.close()


def test_what_others_write_into_the_conversation_shows_at_once(brain: Brain, browser) -> None:
    with widget(brain) as (channel, shop):
        page, chat = opened(browser, shop)
        say(chat, "Hello, is anybody there?")
        chat.locator(".message.assistant:not(.waiting)").wait_for(timeout=PATIENCE)
        found = brain.http.get("/api/v1/conversations?limit=100").json()["data"]
        mine = next(one["id"] for one in found if one["metadata"].get("channel") == channel)
        assert [one["id"] for one in brain.http.get(f"/api/v1/conversations/{mine}/channels").json()["data"]] == [
            channel
        ]
        brain.http.post(f"/api/v1/conversations/{mine}/messages", json={"content": "asked over the API"})
        chat.get_by_text("asked over the API").wait_for(timeout=PATIENCE)
        chat.locator(".message.assistant:not(.waiting)").nth(1).wait_for(timeout=PATIENCE)
        page.context.close()


def test_no_other_page_may_hold_it(brain: Brain, browser) -> None:
    with widget(brain) as (channel, _), serving(SHOP.format(brain.url, channel)) as elsewhere:
        page = browser.new_context().new_page()
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text))
        page.goto(elsewhere)
        page.get_by_role("button", name="Chat").click()
        wait_until(lambda: page.wait_for_timeout(50) or any("frame-ancestors" in text for text in refused), 20)
        assert page.frame_locator("iframe").locator("#text").count() == 0
        page.context.close()


def test_a_visitor_may_no_more_than_talk(brain: Brain) -> None:
    with widget(brain) as (channel, _):
        visit = httpx.post(f"{brain.url}/api/v1/widgets/{channel}/sessions", json={})
        assert visit.status_code == 201, visit.text
        found = visit.json()
        visitor = brain.client(found["access_token"])
        mine = found["conversation_id"]
        assert visitor.get(f"/api/v1/conversations/{mine}").status_code == 200
        body = {"content": "hi", "model": "small"}
        assert visitor.post(f"/api/v1/conversations/{mine}/messages", json=body).status_code == 403
        assert visitor.post("/api/v1/conversations", json={"system_prompt": "obey me"}).status_code == 403
        assert visitor.post("/v1/chat/completions", json={"model": "auto", "messages": []}).status_code == 403
        other = brain.http.post("/api/v1/conversations", json={}).json()["id"]
        assert visitor.get(f"/api/v1/conversations/{other}").status_code == 404
        again = httpx.post(
            f"{brain.url}/api/v1/widgets/{channel}/sessions", json={"refresh_token": found["refresh_token"]}
        ).json()
        assert (again["user_id"], again["conversation_id"]) == (found["user_id"], mine)
        used = httpx.post(
            f"{brain.url}/api/v1/widgets/{channel}/sessions", json={"refresh_token": found["refresh_token"]}
        )
        assert used.status_code == 401
        assert httpx.post(f"{brain.url}/api/v1/widgets/{new_id('chn')}/sessions", json={}).status_code == 404

"""Images made on the page in a real browser, and what it says when they are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browser import (
    Engines,
    OpenPage,
    choose,
    chromium,
    generate,
    needs_chromium,
    page_server,
    toy_engines,
    visits,
)
from fake_engine import FakeEngine
from fake_server import serving
from playwright.sync_api import Browser, expect
from test_server_access import USER, keys_file
from test_server_load import wait_for

from server.access.settings import AccessSettings
from server.settings import Settings

LARGE, SMALL = "32 \N{MULTIPLICATION SIGN} 32", "16 \N{MULTIPLICATION SIGN} 16"


pytestmark = needs_chromium


@pytest.fixture(scope="module")
def engines() -> Engines:
    return toy_engines()


@pytest.fixture(scope="module")
def url(engines: Engines) -> Iterator[str]:
    with page_server(engines) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[OpenPage]:
    with visits(browser, url) as open_page:
        yield open_page


def made(url: str, **wanted: object) -> bytes:
    return (
        httpx.post(f"{url}/generate", json=wanted, headers={"Accept": "image/png"}).raise_for_status().content
    )


def test_images_are_those_of_the_same_request(open_page: OpenPage, url: str) -> None:
    page = open_page()
    generate(page, "ghost", n=3, seed=7, steps=6, cfg=1.5)
    expect(page.locator("#status")).to_contain_text("3 images of ghost")
    for seed in (7, 8, 9):
        page.get_by_role("button", name=f"Open ghost, seed {seed}, faces 2").click()
        expect(page.locator("#viewer-facts")).to_contain_text(LARGE)
        assert "pixelated" in (page.locator("#viewer-image").get_attribute("class") or "")
        with page.expect_download() as download:
            page.locator("#download").click()
        assert download.value.suggested_filename == f"ghost-faces-2-{seed}.png"
        wanted = made(url, model="faces", class_name="ghost", seed=seed, steps=6, cfg=1.5)
        assert download.value.path().read_bytes() == wanted
        page.keyboard.press("Escape")


def test_previews_come_before_images_and_stop_ends_the_work(open_page: OpenPage, engines: Engines) -> None:
    page = open_page()
    generate(page, "cat face", model="slow", n=2, steps=12)
    expect(page.locator(".tile img[src^='data:image/jpeg']")).to_have_count(2)
    assert float(page.locator("progress").first.get_attribute("value") or 0) > 0
    expect(page.locator(".tile:disabled")).to_have_count(2)
    expect(page.locator(".tile:enabled img[src^='blob:']")).to_have_count(2)
    choose(page, "cat face", steps=900)
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".tile img[src^='data:']")).to_have_count(2)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped; 0 images finished")
    wait_for(lambda: not engines["slow", 1].rows)


def test_versions_are_compared_with_the_same_seeds(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("switch").check()
    expect(page.locator("[name=version]").last).to_have_value("1")
    generate(page, "dog face", n=2, seed=30)
    expect(page.locator("#status")).to_contain_text("4 images")
    titles = page.locator(".panel h3").all_text_contents()
    assert titles == ["A faces 2 DDO round 1", "B faces 1 base"]
    assert page.locator(".panel .seed").all_text_contents() == ["30", "31", "30", "31"]
    page.get_by_role("button", name="Open dog face, seed 31, faces 2").click()
    expect(page.locator("#viewer-facts")).to_contain_text(LARGE)
    expect(page.locator("#viewer-place")).to_have_text("A \N{MIDDLE DOT} 3 of 4")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-place")).to_have_text("B \N{MIDDLE DOT} 4 of 4")
    expect(page.locator("#viewer-facts")).to_contain_text(SMALL)
    expect(page.locator("#viewer-facts")).to_contain_text("31")


def test_a_wrong_setting_is_marked_where_it_is(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("switch").check()
    generate(page, "ghost", n=1, steps=5000)
    steps = page.locator("[name=steps]")
    expect(steps.first).to_have_attribute("aria-invalid", "true")
    expect(steps.first).to_be_focused()
    expect(page.locator(f"#{steps.first.get_attribute('aria-describedby')}")).to_contain_text(
        "more than 1000"
    )
    expect(page.get_by_role("alert")).to_contain_text("Steps: 5000 is more than 1000")
    assert steps.last.get_attribute("aria-invalid") is None
    generate(page, "ghost", n=99, steps=4)
    expect(page.locator("[name=n]")).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".field-error")).to_have_count(1)
    generate(page, "ghost", n=1)
    expect(page.locator("#status")).to_contain_text("2 images")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_failures_are_told_in_plain_words_and_can_be_tried_again(open_page: OpenPage) -> None:
    page = open_page()
    generate(page, "red heart", model="broken", n=1)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The engine failed")
    expect(alert).to_contain_text(re.compile("Request [0-9a-f]{16}"))
    page.context.set_offline(True)
    page.get_by_role("button", name="Try again").click()
    expect(alert).to_contain_text("The server cannot be reached")
    page.context.set_offline(False)
    choose(page, "ghost", n=1)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#status")).to_contain_text("1 image of ghost")


def test_a_version_that_has_gone_leaves_the_list(open_page: OpenPage) -> None:
    with page_server(toy_engines()) as url:
        page = open_page(url)
        expect(page.locator("[name=version] option")).to_have_count(2)
        page.locator("[name=version]").first.select_option("1")
        gone = httpx.post(f"{url}/admin/models/faces/unload", json={"version": 1})
        assert gone.status_code == 200
        generate(page, "ghost", n=1)
        expect(page.get_by_role("alert")).to_contain_text("No such version")
        expect(page.locator("[name=version] option")).to_have_count(1)
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#status")).to_contain_text("1 image of ghost")


def test_a_full_server_says_when_to_come_back(open_page: OpenPage) -> None:
    settings = Settings(queue_rows=2, max_images=2)
    with serving({"fake": FakeEngine(capacity=1, cost_s=0.02)}, settings) as url:
        page, other = open_page(url), open_page(url)
        generate(page, "ghost", n=2, steps=40)
        expect(page.locator(".tile img[src^='data:']").first).to_be_visible()
        generate(other, "ghost", n=2)
        again = other.get_by_role("button", name=re.compile("Try again in [0-9]+ s"))
        expect(again).to_be_disabled()
        page.get_by_role("button", name="Stop").click()
        other.get_by_role("button", name="Try again", exact=True).click()
        expect(other.locator("#status")).to_contain_text("2 images of ghost")


def test_a_key_is_asked_for_only_where_it_is_needed_and_never_shown(
    open_page: OpenPage, tmp_path: Path
) -> None:
    with serving({"fake": FakeEngine()}, Settings(access=AccessSettings(keys=keys_file(tmp_path)))) as url:
        page = open_page(url)
        for key, words in (("wrong", "is not known here"), (USER, None)):
            expect(page.locator("#key-dialog")).to_be_visible()
            page.locator("#key").fill(key)
            page.keyboard.press("Enter")
            if words:
                expect(page.locator("#key-text")).to_contain_text(words)
        generate(page, "ghost", n=1)
        page.locator(".tile:enabled").click()
        for button in ("#copy-curl", "#copy-python"):
            page.locator(button).click()
            expect(page.locator("#snippet")).to_contain_text("DDO_API_KEY")
            assert USER not in page.content()
        page.reload()
        expect(page.locator("#key-dialog")).to_be_visible()

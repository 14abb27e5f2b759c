"""Chromium, a server with toy engines, and what a person does on the page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import NAMES, serving_app, version, wait_until_ready
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from engines.settings import EngineSettings
from models.spec import Lineage, VarDefaults
from models.version import ModelVersion
from server.app import create_app
from server.settings import Settings

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 20_000

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no `chromium` to show the page in")

Engines: TypeAlias = Mapping[tuple[str, int | None], FakeEngine]
OpenPage: TypeAlias = Callable[..., Page]


def changed(opened: ModelVersion, **fields: Any) -> ModelVersion:
    return ModelVersion(Path("nowhere"), opened.spec.model_copy(update=fields), opened.number)


VERSIONS = [
    changed(
        version("faces", 2),
        guidance="label-dropout",
        lineage=Lineage(source="a test", parent="faces/0001", round=1),
    ),
    changed(version("faces", 1), guidance="label-dropout"),
    version("slow", 1, classes=("ghost", "cat face", "ghost")),
    version("broken", 1),
    version("plain", 1, classes=()),
    changed(version("tokens", 1, classes=NAMES[:2]), defaults=VarDefaults(top_k=9), guidance="label-dropout"),
]


def toy_engines() -> Engines:
    return {
        ("faces", 2): FakeEngine(),
        ("faces", 1): FakeEngine(size=16),
        ("slow", 1): FakeEngine(cost_s=0.05),
        ("broken", 1): FakeEngine(fail_class=2),
        ("plain", 1): FakeEngine(),
        ("tokens", 1): FakeEngine(size=200),
    }


@contextmanager
def page_server(engines: Engines) -> Iterator[str]:
    """Serve all `VERSIONS`; give the URL."""

    def load(opened: ModelVersion, _: EngineSettings) -> FakeEngine:
        return engines[opened.spec.name, opened.number]

    with serving_app(create_app(Settings(), VERSIONS, load)) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        yield url


@contextmanager
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def visits(browser: Browser, url: str) -> Iterator[OpenPage]:
    """Give what opens the page; in the end no page may have failed, or asked anybody but its server."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_page(address: str = url, script: str = "", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.add_init_script(script)
        own = (address, "blob:", "data:")
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
        page.on("request", lambda asked: None if asked.url.startswith(own) else faults.append(asked.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def choose(page: Page, name: str, **fields: object) -> None:
    """Fill in the form as a person would."""
    expect(page.locator("#class")).not_to_have_value("")
    if "model" in fields:
        page.locator("[name=model]").first.select_option(str(fields.pop("model")))
    page.locator("#class").fill(name)
    page.locator("#class").press("Enter")
    for field, value in fields.items():
        page.locator(f"[name={field}]").first.fill(str(value))


def generate(page: Page, name: str, **fields: object) -> None:
    choose(page, name, **fields)
    page.get_by_role("button", name="Generate").click()

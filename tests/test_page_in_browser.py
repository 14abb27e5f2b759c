"""The page in a real browser, around a real server with toy engines."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import NAMES, serving, serving_app, version, wait_until_ready
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from test_server_access import USER, keys_file
from test_server_load import wait_for

from engines.settings import EngineSettings
from models.spec import Lineage, VarDefaults
from models.version import ModelVersion
from server.access.settings import AccessSettings
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
LARGE, SMALL = "32 \N{MULTIPLICATION SIGN} 32", "16 \N{MULTIPLICATION SIGN} 16"
PHONE = {"width": 360, "height": 740}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no `chromium` to show the page in")


def changed(opened: ModelVersion, **fields: Any) -> ModelVersion:
    return ModelVersion(Path("nowhere"), opened.spec.model_copy(update=fields), opened.number)


VERSIONS = [
    changed(
        version("faces", 2),
        guidance="label-dropout",
        lineage=Lineage(source="a test", parent="faces/0001", round=1),
    ),
    changed(version("faces", 1), guidance="label-dropout"),
    version("slow", 1),
    version("broken", 1),
    changed(version("tokens", 1, classes=NAMES[:2]), defaults=VarDefaults(top_k=9), guidance="label-dropout"),
]


@pytest.fixture(scope="module")
def engines() -> dict[tuple[str, int | None], FakeEngine]:
    return {
        ("faces", 2): FakeEngine(),
        ("faces", 1): FakeEngine(size=16),
        ("slow", 1): FakeEngine(cost_s=0.05),
        ("broken", 1): FakeEngine(fail_class=2),
        ("tokens", 1): FakeEngine(size=200),
    }


@pytest.fixture(scope="module")
def url(engines: dict[tuple[str, int | None], FakeEngine]) -> Iterator[str]:
    def load(opened: ModelVersion, _: EngineSettings) -> FakeEngine:
        return engines[opened.spec.name, opened.number]

    with serving_app(create_app(Settings(), VERSIONS, load)) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_page(address: str = url, script: str = "", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.add_init_script(script)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
        page.on(
            "request",
            lambda asked: asked.url.startswith((address, "blob:", "data:")) or faults.append(asked.url),
        )
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


def made(url: str, **wanted: object) -> bytes:
    return (
        httpx.post(f"{url}/generate", json=wanted, headers={"Accept": "image/png"}).raise_for_status().content
    )


def test_images_are_those_of_the_same_request(open_page: Callable[..., Page], url: str) -> None:
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


def test_a_new_seed_is_drawn_each_time_unless_it_is_kept(open_page: Callable[..., Page]) -> None:
    page = open_page()
    seeds = []
    for keep in (False, True, True):
        if keep and page.locator("#lock").get_attribute("aria-pressed") == "false":
            page.locator("#lock").click()
        generate(page, "ghost", n=1)
        expect(page.locator(".run")).to_have_count(len(seeds) + 1)
        seeds.append(page.locator("#seed").input_value())
    assert seeds[0] == seeds[1] == seeds[2]
    page.locator("#lock").click()
    generate(page, "ghost", n=1)
    expect(page.locator(".run")).to_have_count(4)
    assert page.locator("#seed").input_value() != seeds[0]


def test_previews_come_before_images_and_stop_ends_the_work(
    open_page: Callable[..., Page], engines: dict[tuple[str, int | None], FakeEngine]
) -> None:
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


def test_versions_are_compared_with_the_same_seeds(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.get_by_role("switch").check()
    expect(page.locator("[name=version]").last).to_have_value("1")
    generate(page, "dog face", n=2, seed=30)
    expect(page.locator("#status")).to_contain_text("4 images")
    titles = page.locator(".panel h3").all_text_contents()
    assert titles == ["faces 2 DDO round 1", "faces 1 base"]
    assert page.locator(".panel .seed").all_text_contents() == ["30", "31", "30", "31"]
    page.get_by_role("button", name="Open dog face, seed 31, faces 2").click()
    expect(page.locator("#viewer-facts")).to_contain_text(LARGE)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-facts")).to_contain_text(SMALL)
    expect(page.locator("#viewer-facts")).to_contain_text("31")


def test_only_the_settings_that_a_model_has_are_shown(open_page: Callable[..., Page], url: str) -> None:
    page = open_page()
    shown = page.locator(".side >> nth=0 >> .grid .field:visible")
    expect(shown).to_have_text([re.compile("^Guidance"), re.compile("^Steps"), re.compile("^Solver")])
    choose(page, "cat face", model="tokens", temperature="0.5")
    words = [re.compile(word) for word in ("^Guidance", "^Temperature", "^Top-k", "^Top-p")]
    expect(shown).to_have_text(words)
    expect(page.locator("[name=top_k]").first).to_have_value("9")
    page.locator("[name=model]").first.select_option("broken")
    expect(shown).to_have_text([re.compile("^Steps"), re.compile("^Solver")])
    expect(page.locator("#class")).to_have_value("cat face")


def test_classes_are_found_by_number_part_and_likeness(open_page: Callable[..., Page]) -> None:
    page = open_page()
    field = page.locator("#class")
    expect(field).to_have_value("dog face")
    for typed, chosen in (("3", "ghost"), ("hear", "red heart"), ("goast", "ghost"), ("zzz", "ghost")):
        field.fill(typed)
        expect(field).to_have_attribute("aria-expanded", "true")
        field.press("Enter")
        page.locator("#seed").focus()
        expect(field).to_have_value(chosen)


def test_a_wrong_setting_is_marked_where_it_is(open_page: Callable[..., Page]) -> None:
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


def test_failures_are_told_in_plain_words_and_can_be_tried_again(open_page: Callable[..., Page]) -> None:
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


def test_a_full_server_says_when_to_come_back(open_page: Callable[..., Page]) -> None:
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
    open_page: Callable[..., Page], tmp_path: Path
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


def test_copied_commands_make_the_same_image(open_page: Callable[..., Page], tmp_path: Path) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    generate(page, "ghost", n=1, seed=5)
    page.locator(".thumb").click()
    with page.expect_download() as download:
        page.locator("#download").click()
    for button, command in (("#copy-curl", ["sh", "-c"]), ("#copy-python", [sys.executable, "-c"])):
        page.locator(button).click()
        expect(page.locator("#viewer-status")).to_have_text("Copied")
        copied = page.evaluate("() => navigator.clipboard.readText()")
        subprocess.run([*command, copied], cwd=tmp_path, check=True, timeout=60, capture_output=True)
        file = tmp_path / "ghost-faces-2-5.png"
        assert file.read_bytes() == download.value.path().read_bytes()
        file.unlink()


def test_the_contact_sheet_shows_and_chooses_classes(open_page: Callable[..., Page]) -> None:
    page = open_page()
    choose(page, "ghost", model="tokens")
    page.get_by_role("button", name="Browse").click()
    expect(page.locator("#cells img[src^='blob:']")).to_have_count(2)
    page.locator("#sheet-filter").fill("cat")
    expect(page.locator(".cell:visible")).to_have_count(1)
    page.locator("#sheet-filter").fill("")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#sheet")).to_be_hidden()
    expect(page.locator("#class")).to_have_value("cat face")


def test_everything_is_done_without_a_mouse(open_page: Callable[..., Page]) -> None:
    page = open_page()
    expect(page.locator("#class")).to_have_value("dog face")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # skips to the settings
    page.keyboard.press("Tab")
    expect(page.locator("#class")).to_be_focused()
    page.keyboard.type("face")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#class")).to_have_value("cat face")
    page.keyboard.press("Enter")
    expect(page.locator(".tile:enabled")).to_have_count(4)
    page.locator(".tile").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer-place")).to_have_text("2 of 4")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#viewer-place")).to_have_text("1 of 4")
    page.keyboard.press("Escape")
    expect(page.locator(".tile").nth(1)).to_be_focused()


def test_settings_of_an_image_are_used_again(open_page: Callable[..., Page]) -> None:
    page = open_page()
    generate(page, "red heart", n=2, seed=11, steps=7)
    expect(page.locator(".thumb")).to_have_count(2)
    choose(page, "ghost", model="tokens")
    page.locator(".thumb").last.click()
    page.get_by_role("button", name="Use these settings").click()
    for field, value in (("model", "faces"), ("class_id", "red heart"), ("seed", "12"), ("steps", "7")):
        expect(page.locator(f"[name={field}]").first).to_have_value(value)


def test_a_narrow_screen_holds_everything(open_page: Callable[..., Page]) -> None:
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True)
    for compare in (False, True):
        page.get_by_role("switch").set_checked(compare)
        generate(page, "red heart", n=4)
        expect(page.locator(".tile:enabled")).to_have_count(8 if compare else 4)
        assert page.evaluate("() => document.documentElement.scrollWidth") == PHONE["width"]
        expect(page.get_by_role("button", name="Generate")).to_be_in_viewport()
        for each in page.locator("button:visible, input:visible, select:visible").all():
            box = each.bounding_box()
            assert box and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
    tops = [page.locator(".panel").nth(side).locator(".tile").first.bounding_box() for side in (0, 1)]
    assert tops[0] and tops[1] and tops[0]["y"] == tops[1]["y"]


CONTRAST = """(selector) => {
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const shine = ([red, green, blue]) => {
    const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = [red, green, blue].map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = document.querySelector(selector);
  let ground = element;
  const fill = (each) => parse(getComputedStyle(each).backgroundColor);
  while (fill(ground)[3] === 0) ground = ground.parentElement;
  const shines = [shine(parse(getComputedStyle(element).color)), shine(fill(ground))].sort((a, b) => b - a);
  return (shines[0] + 0.05) / (shines[1] + 0.05);
}"""


def test_text_can_be_read_in_light_and_dark(open_page: Callable[..., Page]) -> None:
    page = open_page()
    generate(page, "red heart", n=1, steps=5000)
    expect(page.get_by_role("alert")).to_be_visible()
    selectors = (
        "h1",
        "#load-text",
        "#empty",
        "#class",
        "#browse",
        "#go",
        ".problem strong",
        ".advice",
        ".field-error",
    )
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for selector in selectors:
            assert page.evaluate(CONTRAST, selector) >= 4.5, (scheme, selector)
        ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 384) == (scheme == "dark")


def test_the_load_is_asked_for_only_while_the_page_is_seen(open_page: Callable[..., Page]) -> None:
    hide = "Object.defineProperty(document, 'hidden', {configurable: true, get: () => !window.seen})"
    page = open_page(script=hide)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/load") else None)
    generate(page, "ghost", n=1)
    expect(page.locator("#status")).to_contain_text("1 image of ghost")
    assert not asked
    expect(page.locator("#load-text")).to_have_text("connecting")
    page.evaluate("() => { window.seen = true; document.dispatchEvent(new Event('visibilitychange')); }")
    expect(page.locator("#load-text")).to_have_text("idle")
    assert asked

"""The page in a real browser: choosing, keeping, keyboard, narrow screens, light and dark."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
from playwright.sync_api import Browser, expect

PHONE = {"width": 360, "height": 740}


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


def test_a_new_seed_is_drawn_each_time_unless_it_is_kept(open_page: OpenPage) -> None:
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


def test_only_the_settings_that_a_model_has_are_shown(open_page: OpenPage, url: str) -> None:
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
    page.locator("[name=model]").first.select_option("plain")
    expect(page.locator("#class")).to_be_hidden()
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#status")).to_contain_text("4 images of plain")


def test_classes_are_found_by_number_part_and_likeness(open_page: OpenPage) -> None:
    page = open_page()
    field = page.locator("#class")
    expect(field).to_have_value("dog face")
    for typed, chosen in (("3", "ghost"), ("hear", "red heart"), ("goast", "ghost"), ("zzz", "ghost")):
        field.fill(typed)
        expect(field).to_have_attribute("aria-expanded", "true")
        field.press("Enter")
        page.locator("#seed").focus()
        expect(field).to_have_value(chosen)


def test_copied_commands_make_the_same_image(open_page: OpenPage, tmp_path: Path) -> None:
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


def test_classes_of_one_name_are_told_apart(open_page: OpenPage) -> None:
    page = open_page()
    generate(page, "2", model="slow", n=1, steps=2)
    page.locator(".tile:enabled").click()
    expect(page.locator("#viewer-facts")).to_contain_text("ghost (2)")


@pytest.mark.parametrize("leave", ["Enter", "Tab", "nothing"])
def test_what_is_typed_while_a_model_is_on_its_way_counts_for_that_model(
    open_page: OpenPage, leave: str
) -> None:
    page = open_page()
    expect(page.locator("#class")).not_to_have_value("")
    page.route("**/models/slow/classes*", lambda route: (page.wait_for_timeout(400), route.continue_()))
    page.locator("[name=model]").first.select_option("slow")
    page.locator("#class").fill("2")
    if leave != "nothing":
        page.locator("#class").press(leave)
        expect(page.locator("#class")).to_have_attribute("aria-expanded", "false")
    page.locator("#form").evaluate("form => form.requestSubmit()")
    page.locator(".tile:enabled").first.click()
    expect(page.locator("#viewer-facts")).to_contain_text("slow 1")
    expect(page.locator("#viewer-facts")).to_contain_text("ghost (2)")


def test_what_replaces_a_selected_class_is_selected_too(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator("#class")).not_to_have_value("")
    choose(page, "red heart")
    page.route("**/models/slow/classes*", lambda route: (page.wait_for_timeout(400), route.continue_()))
    page.locator("[name=model]").first.select_option("slow")
    page.locator("#class").focus()
    expect(page.locator("#class")).to_have_value("ghost")
    page.keyboard.type("cat")
    expect(page.locator("#class")).to_have_value("cat")


def test_of_two_models_chosen_in_a_row_the_last_one_is_taken(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator("#class")).not_to_have_value("")
    page.route("**/models/slow/classes*", lambda route: (page.wait_for_timeout(400), route.continue_()))
    with page.expect_response("**/models/slow/classes*"):
        page.locator("[name=model]").first.select_option("slow")
        page.locator("[name=model]").first.select_option("plain")
    page.get_by_role("button", name="Generate").click()
    page.locator(".tile:enabled").first.click()
    expect(page.locator("#viewer-facts")).to_contain_text("plain 1")


def test_the_contact_sheet_shows_and_chooses_classes(open_page: OpenPage) -> None:
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


def test_everything_is_done_without_a_mouse(open_page: OpenPage) -> None:
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


def test_settings_of_an_image_are_used_again(open_page: OpenPage) -> None:
    page = open_page()
    generate(page, "red heart", n=2, seed=11, steps=7)
    expect(page.locator(".thumb")).to_have_count(2)
    choose(page, "ghost", model="tokens")
    page.locator(".thumb").last.click()
    page.get_by_role("button", name="Use these settings").click()
    for field, value in (("model", "faces"), ("class_id", "red heart"), ("seed", "12"), ("steps", "7")):
        expect(page.locator(f"[name={field}]").first).to_have_value(value)


def test_a_narrow_screen_holds_everything(open_page: OpenPage) -> None:
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


def test_text_can_be_read_in_light_and_dark(open_page: OpenPage) -> None:
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


def test_the_load_is_asked_for_only_while_the_page_is_seen(open_page: OpenPage) -> None:
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

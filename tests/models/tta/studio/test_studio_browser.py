"""The studio in a real browser: Chromium, driven by playwright. Skipped where one is missing."""

from __future__ import annotations

import re
import shutil
import time

import httpx
import numpy as np
import pytest
import soundfile
import torch

from models.tta.studio.shelf import MODEL, Limits, Shelf
from models.tta.studio.studio import SAME, Studio
from tests.models.tta.studio.conftest import serving

pytest.importorskip("gradio", reason="gradio is not installed; sh egs/tta/studio/run.sh does it")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: python -m pip install playwright"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATIENCE = 120_000  # ms: machines are busy


@pytest.fixture(scope="module")
def browser():
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, served):
    """A page of the studio; whatever the browser complains of fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    complaints = []
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((served.address, "data:", "blob:"))
            else complaints.append(request.url)
        ),
    )
    page.goto(served.address)
    yield page
    context.close()
    assert complaints == []


def set_slider(page, label: str, value: object) -> None:
    field = page.get_by_label(f"number input for {label}").locator("visible=true").first
    field.fill(str(value))
    field.press("Tab")


def ready(page) -> None:
    """The model's settings have come in; then short ones are chosen."""
    playwright.expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    page.get_by_role("button", name="Model and sampling").locator("visible=true").click()
    playwright.expect(page.get_by_label("Sampler").first).to_have_value(re.compile("."))
    set_slider(page, "Seconds", 0.5)


def test_what_is_typed_once_one_may_press_generate_stays(page, served, monkeypatch):
    look = served.studio.shelf.models

    def slowly(kind: str = MODEL) -> dict:
        time.sleep(0.2)
        return look(kind)

    monkeypatch.setattr(served.studio.shelf, "models", slowly)
    page.reload()
    ready(page)
    page.wait_for_timeout(8000)  # longer than such a look, and than the time between two
    playwright.expect(page.get_by_label("number input for Seconds").first).to_have_value("0.5")


def test_generate_by_keyboard_replay_and_download(page, served):
    ready(page)
    set_slider(page, "Sounds", 2)
    set_slider(page, "Steps", 2)
    text = "<img src=x onerror=alert(1)> ${1+1} {{value}}"
    page.get_by_label("What to hear").first.fill(text)
    page.get_by_label("What to hear").first.press("Tab")
    page.get_by_role("button", name="Generate").focus()
    page.keyboard.press("Enter")
    cards = page.locator("article.sound:visible")
    playwright.expect(cards).to_have_count(2)
    playwright.expect(cards.first.locator("h3")).to_have_text(text)
    assert cards.first.locator("h3 img").count() == 0
    labels = cards.first.locator(".hz span").all_text_contents()
    assert labels == ["500 Hz", "1 kHz", "2 kHz"]  # the model hears up to 2 kHz
    assert cards.first.locator(".time span").last.text_content() == "0.5 s"
    assert cards.first.locator("img").evaluate("image => image.naturalWidth") > 0
    again = cards.first.get_by_role("button", name="Make again")
    again.focus()
    page.keyboard.press("Enter")
    playwright.expect(cards.first.locator(".note")).to_have_text(SAME)
    with page.expect_download() as started:
        cards.first.get_by_role("link", name="wav").click()
    number = cards.first.get_attribute("data-number")
    kept = served.studio.history.file("", f"{number}.wav")
    assert started.value.path().read_bytes() == kept.read_bytes()
    page.get_by_role("tab", name="History").click()
    playwright.expect(page.get_by_role("link", name="all as zip")).to_be_visible()
    playwright.expect(page.locator("article.sound:visible").first).to_be_visible()


def test_cancel_is_at_once(page, served):
    ready(page)
    set_slider(page, "Steps", 1000)
    page.get_by_label("What to hear").first.fill("a bell")
    page.get_by_role("button", name="Generate").click()
    playwright.expect(page.locator(".progress")).to_contain_text(re.compile(r"step \d+ of 1000"))
    page.get_by_role("button", name="Cancel").locator("visible=true").click()
    playwright.expect(page.locator(".note")).to_contain_text("Cancelled", timeout=10_000)
    assert page.locator("article.sound:visible").count() == 0


def test_a_part_that_is_drawn_is_made_anew(page, served, tmp_path):
    ready(page)
    set_slider(page, "Steps", 2)
    page.get_by_label("What to hear").first.fill("rain")
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("button", name="Edit", exact=True).locator("visible=true").click()
    plot = page.locator(".plot[data-region]")
    playwright.expect(plot).to_be_visible()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 30, steps=4)
    page.mouse.up()
    playwright.expect(page.get_by_label("From second")).to_have_value(re.compile(r"0\.1[123]"))
    playwright.expect(page.get_by_label("To second")).to_have_value(re.compile(r"0\.2[456]"))
    playwright.expect(plot.locator(".region")).to_be_visible()
    page.get_by_label("From second").press("Control+A")
    page.get_by_label("From second").press_sequentially("0.05")
    tenth = re.compile(r"left: ?(9|10)\.")  # of 0.5 s, and what the last frame has beyond
    playwright.expect(plot.locator(".region")).to_have_attribute("style", tenth)
    page.get_by_label("What to hear").locator("visible=true").fill("a bell")
    page.locator("button.primary:visible").click()
    edited = page.locator("article.sound:visible:has(.sides)")
    playwright.expect(edited.locator("h4")).to_contain_text(["Before", "After", "Difference"])
    playwright.expect(edited).to_contain_text("bit for bit")
    pictures = edited.locator("img")
    assert pictures.count() == 3
    assert all(picture.evaluate("i => i.naturalWidth") > 0 for picture in pictures.all())


def go_to(page, target, by: str = "Tab") -> None:
    """Presses Tab until the target has the focus."""
    playwright.expect(target).to_be_visible()
    for _ in range(150):
        if target.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press(by)
    raise AssertionError(f"no way by {by} to {target}")


def test_the_keyboard_alone_is_enough(page, served, tmp_path):
    """To generate, find, replay, download, edit a part, and send a sound of one's own."""

    def press(target, key: str = "Enter") -> None:
        go_to(page, target)
        page.keyboard.press(key)

    def type_into(target, text: str) -> None:
        press(target, "Control+A")
        page.keyboard.type(text)

    sent = set(served.uploads.glob("sent-*"))
    playwright.expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    type_into(page.get_by_label("What to hear").first, "rain")
    press(page.get_by_role("button", name="Generate"))
    playwright.expect(page.locator("article.sound:visible")).to_have_count(1)
    press(page.get_by_role("tab", name="History"))
    card = page.locator("article.sound:visible").first
    playwright.expect(card.locator("h3")).to_have_text("rain")
    press(card.get_by_role("button", name="Make again"))
    playwright.expect(card.locator(".note")).to_have_text(SAME)
    with page.expect_download() as started:
        press(card.get_by_role("link", name="wav"))
    kept = served.studio.history.newest("", 0, 1)[0]
    wav = served.studio.history.file("", f"{kept.number}.wav")
    assert started.value.path().read_bytes() == wav.read_bytes()
    go_to(page, card.get_by_role("button", name="Edit", exact=True), "Shift+Tab")
    page.keyboard.press("Enter")
    plot = page.locator(".plot[data-region]")
    type_into(page.get_by_label("From second"), "0.02")  # of 0.128
    type_into(page.get_by_label("To second"), "0.06")
    playwright.expect(plot.locator(".region")).to_be_visible()
    type_into(page.get_by_label("What to hear").locator("visible=true"), "a bell")
    press(page.locator("button.primary:visible"))
    edited = page.locator("article.sound:visible:has(.sides)")
    playwright.expect(edited).to_contain_text("0.02 to 0.06 s made anew")
    source = page.locator("article.source audio").get_attribute("src")
    soundfile.write(tmp_path / "mine.wav", np.full(4000, 0.1), 8000)
    go_to(page, page.locator(".drop button:visible").first)
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(tmp_path / "mine.wav")
    other = page.locator("article.source audio")
    playwright.expect(other).not_to_have_attribute("src", source)
    assert set(served.uploads.glob("sent-*")) <= sent


def test_adapters_are_chosen_and_come_back_with_the_settings(page, served):
    ready(page)
    set_slider(page, "Steps", 3)
    page.get_by_label("Adapters").first.click()
    page.get_by_role("option", name="lora").click()
    page.get_by_label("What to hear").first.fill("rain")
    page.get_by_role("button", name="Generate").click()
    playwright.expect(page.locator("article.sound:visible")).to_contain_text("1 times lora")
    page.reload()
    ready(page)
    playwright.expect(page.locator(".token")).to_have_count(0)
    page.get_by_role("tab", name="History").click()
    page.get_by_role("button", name="Use settings").locator("visible=true").first.click()
    playwright.expect(page.locator(".token:visible")).to_contain_text("lora")
    steps = page.get_by_label("number input for Steps").locator("visible=true")
    playwright.expect(steps).to_have_value("3")


def test_a_fault_is_told_in_words(page):
    ready(page)
    page.get_by_role("button", name="Generate").click()
    playwright.expect(page.get_by_role("alert")).to_have_text("there is no text; say what to hear")


def test_without_a_model_the_page_says_what_to_do_and_goes_on(browser, runs, tmp_path):
    shelf = Shelf([str(tmp_path / "runs")], [], torch.device("cpu"), Limits())
    with serving(Studio(shelf, tmp_path / "studio"), tmp_path / "uploads") as served:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(served.address)
        playwright.expect(page.get_by_text("sh egs/tta/quickstart/run.sh")).to_be_visible()
        playwright.expect(page.get_by_role("button", name="Generate")).to_be_disabled()
        (tmp_path / "runs").mkdir()
        shutil.copytree(runs / "one", tmp_path / "runs" / "one")
        playwright.expect(page.get_by_role("button", name="Generate")).to_be_enabled()
        playwright.expect(page.get_by_text("sh egs/tta/quickstart/run.sh")).to_be_hidden()
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(browser, served, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(served.address)
    for tab in ("Generate", "Edit", "History", "Training"):
        page.get_by_role("tab", name=tab).click()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, tab
    context.close()


def test_a_killed_client_frees_its_place(browser, served):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(served.address)
    ready(page)
    set_slider(page, "Steps", 1000)
    page.get_by_label("What to hear").first.fill("a bell")
    page.get_by_role("button", name="Generate").click()
    playwright.expect(page.locator(".progress")).to_contain_text(re.compile(r"step \d+ of 1000"))
    before = served.studio.history.count("")
    page.close()
    deadline = time.monotonic() + 60
    while served.studio.turns.busy and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not served.studio.turns.busy
    assert served.studio.history.count("") == before  # it was dropped, not finished
    assert httpx.get(served.address).status_code == 200

import csv
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from models.tta.evaluation.page import PageClip, duration, write_page
from tests.tiny import ROOT

TEMPLATES = ROOT / "models" / "tta" / "evaluation"
VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Checks that tags nest; collects references, ids and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.sources, self.links, self.ids, self.text = [], [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.sources += [attributes["src"]] if "src" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


PROMPTS = [
    ("bell", 'A bell rings <twice> & "loudly"', "bell"),
    ("rain", "Rain pours", "engine"),
    ("bell", "Ding dong", "rain"),
]


@pytest.fixture
def clips(tmp_path):
    (tmp_path / "wav").mkdir()
    clips = []
    for number, (kind, prompt, heard) in enumerate(PROMPTS):
        # Names with signs that a URL must quote.
        name = f"wav/{number} 100%#é"
        for suffix in ("wav", "png"):
            (tmp_path / f"{name}.{suffix}").write_bytes(b"")
        clips.append(PageClip(name, prompt, kind, heard, new_wording=number == 2))
    return clips


@pytest.fixture
def page(tmp_path, clips):
    stages = {"Make the data": 4.26, "Train the VAE": 80.4, "Train the U-Net": 119.7}
    path = write_page(tmp_path, clips, stages)
    assert path == tmp_path / "index.html"
    return Page(path.read_text(encoding="utf-8"))


def test_every_file_that_the_page_names_is_there_by_a_relative_path(tmp_path, page):
    assert len(page.sources) == 2 * len(PROMPTS)
    assert all((tmp_path / unquote(source)).is_file() for source in page.sources)
    assert not any(source.startswith(("/", "http", "file:")) for source in page.sources)


def test_links_lead_to_places_on_the_page(page):
    assert len(set(page.ids)) == len(page.ids)
    assert page.links == ["#kind-0", "#kind-1"]
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_prompts_are_text_not_markup(page):
    text = [part.strip() for part in page.text]
    assert PROMPTS[0][1] in text


def test_pictures_and_players_have_names_for_those_who_do_not_see_them(page):
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"]
        if tag == "audio":
            assert attributes["aria-label"]
            assert "controls" in attributes
    assert page.tags[0] == ("html", {"lang": "en"})
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_score_and_times(page):
    text = " ".join("".join(page.text).split())
    assert "1 of 3 sounds recognised as what was asked for" in text
    assert "0 of 1 where the prompt is worded as no training caption was" in text
    assert "Make the data4.3 s" in text
    assert "Train the VAE1 min 20 s" in text
    assert "Total3 min 24 s" in text
    assert "bell1 of 2rain" in text
    assert "rain0 of 1engine" in text


def test_table_beside_the_page(tmp_path, page, clips):
    with (tmp_path / "recognised.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "prompt", "kind", "heard"]
    assert rows[1:] == [[f"{c.name}.wav", c.prompt, c.kind, c.heard] for c in clips]


def test_a_page_without_new_wordings_does_not_speak_of_them(tmp_path, clips):
    text = write_page(tmp_path, clips[:2], {}).read_text(encoding="utf-8")
    assert "worded" not in text
    assert "new wording" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (60, "1 min 00 s"),
        (119.6, "2 min 00 s"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def luminance(colour):
    """WCAG 2.2's relative luminance of #rgb or #rrggbb."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(scheme):
    """A contrast of 4.5 at least: WCAG 2.2, success criterion 1.4.3."""
    light, dark = re.findall(r":root \{(.*?)\}", (TEMPLATES / "base.html.j2").read_text(), re.S)
    colours = dict(re.findall(r"--(\w+): (#\w+);", light if scheme == "light" else dark))
    for text in ("text", "soft", "right", "wrong", "accent"):
        for ground in ("page", "card"):
            bright, dim = sorted(map(luminance, (colours[text], colours[ground])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, ground)


def test_colours_stand_in_one_place():
    found = {
        path.name: re.findall(r"#[0-9a-fA-F]{3,8}\b|rgba?\(|hsla?\(", rest)
        for path in TEMPLATES.glob("*.j2")
        for rest in [re.sub(r":root \{.*?\}", "", path.read_text(encoding="utf-8"), flags=re.S)]
    }
    assert "base.html.j2" in found
    assert not any(found.values()), found

"""The page: bounded, the same each time, closed to the outside, and harmless whatever a stream is called."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pcs_agent.report import page as module
from pcs_agent.report.page import ORDERS, render_page
from pcs_agent.report.streams import Judgement, Streams
from pcs_agent.report.wording import MEANINGS
from window_views import PORTRAIT, view

HOSTILE = "<script>alert(1)</script> & \"quoted\" '{{ 7 * 7 }}' </style><img src=x onerror=alert(2)>"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
LOADING = {"script", "iframe", "object", "embed", "video", "audio", "source", "base", "form"}


class Parsed(HTMLParser):
    """Tags with their attributes, and texts by the tag they stand in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.tags[-1][0], data.strip()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def streams_of(**windows: int) -> Streams:
    streams = Streams()
    for name, count in windows.items():
        streams.add(name, name, [view(epoch, pcs_id=f"{name}-{epoch}") for epoch in range(count)])
    return streams


def test_the_policy_stands_before_anything_that_could_load(four_kinds_page: str) -> None:
    parsed = Parsed(four_kinds_page)
    names = [tag for tag, _ in parsed.tags]
    assert parsed.all("meta")[1] == {"http-equiv": "Content-Security-Policy", "content": POLICY}
    assert names.index("meta") < min(names.index(tag) for tag in ("link", "style", "body"))
    assert LOADING & set(names) == set()


def test_nothing_in_it_leads_outside(four_kinds_page: str) -> None:
    outside = [
        (tag, name, value)
        for tag, attributes in Parsed(four_kinds_page).tags
        for name, value in attributes.items()
        if value is not None
        and (name in {"src", "href", "xlink:href", "action", "data", "srcset"} or "url(" in value)
        and not re.match(r"#|data:image/png;base64,|data:,$|.*url\(#", value, re.DOTALL)
    ]
    assert outside == []
    assert "@import" not in four_kinds_page
    addresses = set(re.findall(r"https?://[^\"'\s<]+", four_kinds_page))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_same_streams_give_the_same_bytes(
    kinds: dict[str, str], gather_files: Callable[..., Streams]
) -> None:
    pages = {render_page(gather_files(kinds["looping"], kinds["truncated"])) for _ in range(2)}
    assert len(pages) == 1


def test_names_in_the_page_are_unique_and_those_referred_to_exist(four_kinds_page: str) -> None:
    names = re.findall(r'\bid="([^"]+)"', four_kinds_page)
    assert len(names) == len(set(names))
    referred = re.findall(r'(?:href="|url\()#([^")]+)', four_kinds_page)
    referred += [
        name for group in re.findall(r'aria-labelledby="([^"]+)"', four_kinds_page) for name in group.split()
    ]
    assert set(referred) - set(names) == set()
    assert len(referred) > 100


def test_every_picture_has_title_description_reading_meaning_and_numbers(four_kinds_page: str) -> None:
    figures = re.findall(r"<figure.*?</figure>", four_kinds_page, re.DOTALL)
    # Each of three streams: two over time, and for two or three windows three each; the truncated one has one window.
    assert len(figures) >= 3 * 8 + 3
    for figure in figures:
        for svg in re.findall(r"<svg.*?</svg>", figure, re.DOTALL):
            assert re.search(
                r'<svg [^>]*role="img"[^>]*><title id="[^"]+">[^<]+</title><desc id="[^"]+">[^<]{10,}</desc>',
                svg,
            )
        assert sum(meaning in figure for meaning in MEANINGS.values()) == 1
        assert len(re.findall(r'<p class="reading">[^<]{10,}</p>', figure)) == 1
        over_time = (
            "over the windows" in figure or "over time" in figure
        )  # whose numbers are the windows' table
        assert ("<details>" in figure) == (not over_time)


def test_a_hostile_name_is_text_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams()
    doubtful = Judgement(word="dead", by_backend=False, reasons=(HOSTILE,))
    for key in ("a", "b"):
        streams.add(key, HOSTILE, [view(1, pcs_id=key, fallbacks=(HOSTILE,), judgement=doubtful)])
        streams.note_problem(key, HOSTILE, HOSTILE)
    parsed = Parsed(render_page(streams))
    assert LOADING & {tag for tag, _ in parsed.tags} == set()
    assert parsed.all("img") == []
    assert [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")] == []
    assert [text for tag, text in parsed.texts if tag == "h2"] == ["Overview", HOSTILE, HOSTILE]
    assert ("a", HOSTILE) in parsed.texts
    assert ("li", f"not read to its end: {HOSTILE}") in parsed.texts


def test_a_file_with_a_hostile_name_is_text_too(tmp_path: Path, gather_files: Callable[..., Streams]) -> None:
    path = tmp_path / "<script>alert(1)<&amp;.npy"
    np.save(path, np.random.default_rng(1).random((50, 2)))
    parsed = Parsed(render_page(gather_files(str(path), window=None)))
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert [text for tag, text in parsed.texts if tag == "h2"] == [str(path)]


def test_streams_beyond_the_bound_have_a_row_and_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECTIONS_MAX", 2)
    text = render_page(streams_of(a=1, b=1, c=1))
    assert "shown of the first 2 streams; of 1 more only the row in the overview" in text
    parsed = Parsed(text)
    assert [text for tag, text in parsed.texts if tag == "h2"] == ["Overview", "a", "b"]
    assert ("th", "c") in parsed.texts
    assert ("a", "b") in parsed.texts


def test_windows_beyond_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_WINDOWS_MAX", 12)
    text = render_page(streams_of(a=30, b=3))
    assert "The newest 6 windows of 30 are shown; the sums above count all of them." in text
    epochs = [text for tag, text in Parsed(text).texts if tag == "th" and text.isdigit()]
    assert [epoch for epoch in epochs if int(epoch) >= 20] == ["24", "25", "26", "27", "28", "29"]


def test_pictured_windows_are_fewer_where_streams_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_PICTURED_MAX", 4)
    streams = Streams()
    for name in ("a", "b"):
        streams.add(name, name, [view(epoch, r=0.9 - 0.1 * (epoch == 1)) for epoch in range(4)])
    titles = [text for tag, text in Parsed(render_page(streams)).texts if text.startswith("Epoch ")]
    assert titles == ["Epoch 0 (first)", "Epoch 3 (last)"] * 2


def test_the_largest_picture_is_bounded() -> None:
    from pcs_agent.report import pictures
    from pcs_agent.report.portrait import portray

    noise = np.random.default_rng(3).random((5_000, 1))  # the least compressible picture
    portrait = portray([noise], 5_000, [1.0], 4_096)
    assert portrait.run is not None
    assert portrait.histogram is not None
    sizes = [
        len(pictures.draw_recurrence(portrait.run, "a", "b")),
        len(pictures.draw_histogram(portrait.histogram, "a", "b")),
        len(pictures.draw_r([view(epoch, r=(epoch % 7) / 7) for epoch in range(500)], "a", "b")),
        len(pictures.draw_regimes([view(epoch) for epoch in range(500)], "a", "b")),
    ]
    assert max(sizes) < 100_000


def test_the_overview_can_be_put_in_every_order_without_a_script() -> None:
    streams = Streams()
    streams.add("1", "zebra", [view(1, r=0.9, d_hat=1.0)])
    streams.add("2", "ant", [view(1, r=0.1, d_hat=2.0)])
    dead = Judgement(word="dead", by_backend=False)
    streams.add("3", "mole", [view(1, r=0.5, d_hat=0.0, judgement=dead)])
    text = render_page(streams)
    rows = re.findall(r'<tr role="row"[^>]* style="([^"]+)"><th[^>]*><a[^>]*>(\w+)<', text)
    found = {}
    for number, (name, _) in enumerate(ORDERS, start=1):
        assert f".overview:has(#o{number}:checked) tbody tr {{ order: var(--o{number}); }}" in text
        places = {int(re.search(rf"--o{number}: (\d+);", style)[1]): stream for style, stream in rows}
        found[name] = [places[place] for place in (1, 2, 3)]
    assert found == {
        "as given": ["zebra", "ant", "mole"],
        "name": ["ant", "mole", "zebra"],
        "r, least first": ["ant", "mole", "zebra"],
        "D̂, least first": ["mole", "zebra", "ant"],
        "doubtful first": ["mole", "zebra", "ant"],
    }


def test_a_record_alone_has_its_slope_and_the_page_says_what_is_missing() -> None:
    streams = Streams()
    streams.add("a", "a", [view(1, events=None, portrait=None)])
    text = render_page(streams)
    assert "Only the record is known, so what needs the events is not drawn." in text
    assert "unknown: only records were read" in text
    assert text.count("<figure") == 1


def test_a_claimed_slope_that_the_counts_do_not_give_is_told() -> None:
    streams = Streams()
    streams.add("a", "a", [view(1, d_hat=1.7, portrait=PORTRAIT)])
    assert "Slope D̂ = 1.000" in render_page(streams)
    assert "The record claims 1.700." in render_page(streams)

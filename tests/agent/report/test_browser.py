"""The page in a real browser: it asks for nothing, complains of nothing, and every picture is there at any width."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from browser import Browser

pytestmark = pytest.mark.slow

WIDTHS = (1280, 390)

# What a reader could not see: pictures without room, texts in them too small, and a page wider than the window.
MEASURE = """(() => {
  const box = element => { const r = element.getBoundingClientRect(); return [r.width, r.height] };
  return {
    width: document.documentElement.scrollWidth,
    pictures: [...document.querySelectorAll("figure svg")].map(box),
    images: [...document.querySelectorAll("figure svg image")].map(box),
    sizes: [...document.querySelectorAll("figure svg text")].map(
      text => parseFloat(getComputedStyle(text).fontSize) * text.closest("svg").getScreenCTM().a),
    outside: [...document.querySelectorAll("figure svg text")].filter(text => {
      const a = text.getBoundingClientRect(), b = text.closest("svg").getBoundingClientRect();
      return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
    }).map(text => text.textContent),
    captions: [...document.querySelectorAll("figcaption .meaning")].map(box),
    scripts: document.scripts.length,
  };
})()"""

CONTRAST = """(() => {
  const luminance = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(
      v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const card = luminance(getComputedStyle(document.querySelector("section")).backgroundColor);
  const of = (selector, property) => [...document.querySelectorAll(selector)].map(element => {
    const ink = luminance(getComputedStyle(element)[property]);
    return (Math.max(ink, card) + 0.05) / (Math.min(ink, card) + 0.05);
  });
  return { texts: [...of("figure svg text", "fill"), ...of("p.meaning, p.reading, p.legend, dt, dd, section a", "color")] };
})()"""


class Site:
    """Serves one page, and notes every request."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's name
                site.asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(site.page.encode("utf-8"))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


@pytest.fixture
def site(four_kinds_page: str) -> Iterator[Site]:
    served = Site(four_kinds_page)
    yield served
    served.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_asks_for_nothing_and_every_picture_has_room(
    browser: Browser, site: Site, width: int
) -> None:
    look = browser.look(site.url, width=width, script=MEASURE)
    assert look.requests == [site.url]
    assert site.asked == ["/"]
    assert look.messages == []
    found: Any = look.value
    assert found["scripts"] == 0
    assert found["width"] == width
    assert len(found["pictures"]) == site.page.count("<svg") > 30
    assert len(found["images"]) == site.page.count("<image") >= 15
    for sizes in (found["pictures"], found["images"], found["captions"]):
        assert min(min(size) for size in sizes) >= 16
    assert min(width for width, _ in found["pictures"]) > 180
    assert found["outside"] == []
    assert min(found["sizes"]) >= 8


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_stand_out_in_light_and_dark(browser: Browser, site: Site, dark: bool) -> None:
    found: Any = browser.look(site.url, width=1280, script=CONTRAST, dark=dark).value
    assert len(found["texts"]) > 200
    assert min(found["texts"]) >= 4.5  # WCAG AA


def test_in_print_the_page_is_white_and_hidden_numbers_are_shown(browser: Browser, site: Site) -> None:
    script = """[
      getComputedStyle(document.querySelector("section")).backgroundColor,
      Math.min(...[...document.querySelectorAll("details table")].map(table => table.getBoundingClientRect().height)),
      getComputedStyle(document.querySelector("fieldset")).display,
    ]"""
    found: Any = browser.look(site.url, width=800, script=script, media="print", dark=True).value
    assert found[0] == "rgb(255, 255, 255)"
    assert found[1] > 10
    assert found[2] == "none"


def test_the_overview_is_sorted_by_what_is_chosen(browser: Browser, site: Site) -> None:
    script = """(() => {
      const order = () => [...document.querySelectorAll(".overview tbody tr")]
        .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
        .map(row => row.querySelector("th").textContent.split("/").pop());
      const before = order();
      document.querySelector("#o2").click();
      return [before, order()];
    })()"""
    before, after = browser.look(site.url, width=1280, script=script).value
    assert before == ["healthy.npy", "looping.npy", "drifting.npy", "truncated.npy"]
    assert after == ["drifting.npy", "healthy.npy", "looping.npy", "truncated.npy"]


def test_the_policy_holds_against_what_would_break_out(browser: Browser, site: Site) -> None:
    """Were escaping to fail, the browser would still run nothing and fetch nothing."""
    attack = (
        "<script>document.title = 'broken'</script><img src='/stolen' onerror=\"document.title = 'broken'\">"
        "<link rel=stylesheet href='/stolen.css'><iframe src='/frame'></iframe>"
    )
    site.page = site.page.replace("<main>", f"<main>{attack}")
    look = browser.look(site.url, width=1280, script="document.title")
    assert site.asked == ["/"]
    assert look.value == "PCS report: 4 streams"
    assert len(look.messages) >= 4
    assert all("Content Security Policy" in message for message in look.messages)


def test_these_tests_would_see_a_page_that_asks_for_more(browser: Browser, site: Site) -> None:
    site.page = "<!DOCTYPE html><link rel='icon' href='data:,'><img src='/more.png'><script>console.error('oh')</script>"
    look = browser.look(site.url, width=1280)
    assert look.requests == [site.url, f"{site.url}more.png"]
    assert site.asked == ["/", "/more.png"]
    assert "oh" in look.messages

"""The report in a real browser: headless Chromium, driven over its WebDriver protocol."""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromedriver") and shutil.which("chromium")),
    reason="needs chromium and chromium-driver (Debian packages)",
)


class Browser:
    """As much of WebDriver as these tests need."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/session"
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu",
                            "--window-size=1000,1400"]}  # fmt: skip
        wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                  "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}  # fmt: skip
        session = self.call("", {"capabilities": {"alwaysMatch": wanted}})
        self.url += f"/{session['sessionId']}"

    def call(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        data = None if method == "DELETE" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def run(self, script: str) -> Any:
        return self.call("/execute/sync", {"script": script, "args": []})

    def logs(self, kind: str) -> list[dict[str, Any]]:
        logged: list[dict[str, Any]] = self.call("/se/log", {"type": kind})
        return logged

    def prefer(self, scheme: str, *, offline: bool = True) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        network = {"offline": offline, "latency": 0, "downloadThroughput": -1,
                   "uploadThroughput": -1}  # fmt: skip
        for command, params in (
            ("Emulation.setEmulatedMedia", {"features": [feature]}),
            ("Network.enable", {}),
            ("Network.emulateNetworkConditions", network),
        ):
            self.call("/goog/cdp/execute", {"cmd": command, "params": params})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        session = Browser(port)
        yield session
        session.call("", method="DELETE")
    finally:
        driver.terminate()
        driver.wait(timeout=10)


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Browser, demo: Path) -> Browser:
    browser.prefer(request.param)
    browser.call("/url", {"url": (demo / "report.html").as_uri()})
    while browser.run("return document.readyState") != "complete":
        time.sleep(0.05)
    return browser


def contrast(first: str, second: str) -> float:
    """WCAG contrast of two CSS colours of the form rgb(r, g, b)."""

    def luminance(color: str) -> float:
        parts = [int(float(p)) / 255 for p in color[color.index("(") + 1 : -1].split(",")[:3]]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_it_shows_its_figures_without_errors_or_requests(page: Browser) -> None:
    assert [entry["message"] for entry in page.logs("browser")] == []
    sizes = page.run(
        "return [...document.querySelectorAll('figure svg')].map("
        "s => { const b = s.getBoundingClientRect(); return [b.width, b.height]; });"
    )
    assert len(sizes) == 8
    assert all(width > 200 and height > 100 for width, height in sizes)
    asked = [json.loads(e["message"])["message"] for e in page.logs("performance")]
    urls = [
        m["params"]["request"]["url"] for m in asked if m["method"].endswith("requestWillBeSent")
    ]
    assert all(u.startswith(("file:", "data:")) for u in urls) and urls


def test_text_and_axes_have_contrast(page: Browser) -> None:
    ink, paper, faint, label = page.run(
        "const css = e => getComputedStyle(e); const b = css(document.body);"
        "return [b.color, b.backgroundColor, css(document.querySelector('figcaption')).color,"
        " css(document.querySelector('svg g[style*=\"fill: currentColor\"]')).fill];"
    )
    assert contrast(ink, paper) > 10
    assert contrast(faint, paper) > 4.5
    assert contrast(label, paper) > 10


def test_tables_sort_by_number_and_by_text_and_back(page: Browser) -> None:
    click = (
        "const t = document.querySelectorAll('table.sortable')[1];"
        "const c = [...t.tHead.rows[0].cells].findIndex(h => h.textContent.startsWith('{}'));"
        "t.tHead.rows[0].cells[c].querySelector('button').click();"
        "return [t.tHead.rows[0].cells[c].getAttribute('aria-sort'),"
        " [...t.tBodies[0].rows].map(r => r.cells[c].textContent)];"
    )
    order, values = page.run(click.format("log2_opt"))
    assert order == "ascending"
    assert [float(v) for v in values] == sorted(float(v) for v in values)
    order, values = page.run(click.format("log2_opt"))
    assert order == "descending"
    assert [float(v) for v in values] == sorted((float(v) for v in values), reverse=True)
    _, names = page.run(click.format("group"))
    assert names == ["mup"] * 4 + ["sp"] * 4


def test_a_point_under_the_pointer_shows_its_value_and_lines_can_be_hidden(page: Browser) -> None:
    point_at = (
        "const f = document.querySelectorAll('figure')[0], svg = f.querySelector('svg');"
        "const use = [...svg.querySelectorAll('.series[data-points] use')];"
        "const b = use[Math.floor(use.length / 8)].getBoundingClientRect();"
        "svg.dispatchEvent(new PointerEvent('pointermove',"
        " {clientX: b.x + b.width / 2, clientY: b.y + b.height / 2, bubbles: true}));"
        "return document.querySelector('.tip').textContent;"
    )
    said = page.run(point_at)
    assert re.fullmatch(r"sp: width (32|64): lr 0\.\d+, loss [23]\.\d+", said), said
    press = (
        "const b = [...document.querySelectorAll('figure')[0].querySelectorAll('.toggles button')]"
        ".find(b => b.textContent === '{}'); b.click(); return [b.getAttribute('aria-pressed'),"
        " [...document.querySelectorAll('figure')[0].querySelectorAll('{}')]"
        ".filter(e => e.dataset.name === '{}').map(e => getComputedStyle(e).display)];"
    )
    for button, kind, name in (("width 32", ".series", "32"), ("sp", ".panel", "sp")):
        pressed, shown = page.run(press.format(button, kind, name))
        assert pressed == "false" and shown and set(shown) == {"none"}
        assert button != "sp" or page.run(point_at) == ""
        pressed, shown = page.run(press.format(button, kind, name))
        assert pressed == "true" and "none" not in shown


def test_it_prints_on_paper_without_what_only_a_screen_has(page: Browser) -> None:
    page.call(
        "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"media": "print"}}
    )
    shown = page.run(
        "const css = s => getComputedStyle(document.querySelector(s));"
        "return [css('body').backgroundColor, css('.toggles').display, css('figure svg').filter];"
    )
    page.call("/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"media": ""}})
    assert shown == ["rgb(255, 255, 255)", "none", "none"]


def test_nothing_is_wider_than_a_phone(page: Browser) -> None:
    page.call("/window/rect", {"width": 500, "height": 900})
    wide, inner = page.run("return [document.documentElement.scrollWidth, window.innerWidth];")
    page.call("/window/rect", {"width": 1000, "height": 1400})
    assert wide <= inner

"""The report in a real browser: it is opened from the disk, played, scrubbed, turned and read at two widths."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motionsynth.report import render
from tests.tiny_report import CLASS_NAMES, run_in_memory
from tests.web_server import chromium

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Image = pytest.importorskip("PIL.Image")

# No GPU is needed: WebGL in software.
FLAGS = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE = 120_000
"""Milliseconds; a busy machine draws slowly."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(*FLAGS, timeout=PATIENCE) as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(run_in_memory()), "utf-8")
    return path


class Opened:
    """A page with what it said and what it asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.said.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.said.append(f"error: {e}"))
        self.page.on("dialog", lambda d: (self.said.append(f"dialog: {d.message}"), d.dismiss()))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.goto(path.as_uri())
        self.path = path

    def picture(self) -> np.ndarray:
        """The canvas as it is on the screen, once two frames have been drawn."""
        self.page.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        shot = self.page.locator("#player canvas").screenshot(timeout=PATIENCE)
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def seconds(self) -> float:
        return float(self.page.locator("#player .time").inner_text().split(" / ")[0])

    def scrub(self, to: int) -> None:
        self.page.locator("#player .scrub").fill(str(to))

    def close(self) -> None:
        """Nothing went wrong meanwhile, and nothing left the file."""
        # Chromium reports what software rendering costs as a warning of the driver.
        assert [s for s in self.said if "GPU stall" not in s] == []
        assert self.asked == [self.path.as_uri()]
        self.context.close()


def test_it_plays_scrubs_and_switches(browser: Any, report: Path) -> None:
    opened = Opened(browser, report)
    page = opened.page
    assert page.locator("h1").inner_text().startswith("motion_gan")
    assert page.locator("#player .failed").is_hidden()
    first = opened.picture()
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 100

    # Scrubbing sets the time and moves the bodies.
    opened.scrub(12)
    assert opened.seconds() == 0.4
    there = opened.picture()
    assert (np.abs(there - first).max(-1) > 30).sum() > 300
    opened.scrub(0)
    assert (np.abs(opened.picture() - first).max(-1) > 30).sum() < 100

    # Play runs and pause stops; a click does both.
    play = page.get_by_role("button", name="Play")
    play.click()
    page.wait_for_function("() => Number(document.querySelector('#player .scrub').value) > 3")
    page.get_by_role("button", name="Pause").click()
    stopped = opened.seconds()
    page.wait_for_timeout(300)
    assert opened.seconds() == stopped > 0

    # Keys: space plays and pauses, arrows step.
    page.locator("#player .stage").focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Pause").wait_for()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Play").wait_for()
    opened.scrub(6)
    page.locator("#player .stage").focus()
    page.keyboard.press("ArrowRight")
    assert opened.seconds() == 0.23
    page.keyboard.press("ArrowLeft")
    assert opened.seconds() == 0.2

    # Another class brings its own clips; a name in the table of classes does the same.
    menu, synthetic = (
        page.locator("#player select.class"),
        page.locator("#player select.synthetic"),
    )
    before = synthetic.input_value()
    menu.select_option(label=CLASS_NAMES[2])
    assert synthetic.input_value() != before and opened.seconds() == 0.0
    page.locator("#classes a", has_text="left hand").click()
    assert menu.locator("option:checked").inner_text() == CLASS_NAMES[1]
    opened.close()


def test_views_turn_and_the_nearest_clip_is_found(browser: Any, report: Path) -> None:
    opened = Opened(browser, report)
    page = opened.page
    opened.scrub(8)
    page.locator("#player .trails").uncheck()
    front = opened.picture()
    page.locator("#player select.view").select_option("side")
    side = opened.picture()
    assert (np.abs(side - front).max(-1) > 30).sum() > 1000
    box = page.locator("#player canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 250)
    page.mouse.down()
    page.mouse.move(box["x"] + 330, box["y"] + 230, steps=4)
    page.mouse.up()
    assert (np.abs(opened.picture() - side).max(-1) > 30).sum() > 1000
    # Both halves turn together: each has changed.
    half = side.shape[1] // 2
    changed = np.abs(opened.picture() - side).max(-1) > 30
    assert changed[:, :half].sum() > 300 and changed[:, half:].sum() > 300

    page.locator("#player .trails").check()
    assert (np.abs(opened.picture() - side).max(-1) > 12).sum() > 100
    real, synthetic = (page.locator(f"#player select.{side}") for side in ("real", "synthetic"))
    options = real.locator("option").count()
    names = set()
    for i in range(synthetic.locator("option").count()):
        synthetic.select_option(index=i)
        page.get_by_role("button", name="Show nearest real clip").click()
        names.add(real.locator("option:checked").inner_text().split(": ")[1])
        assert (
            real.locator("option:checked").inner_text().split(": ")[1] in page.locator(".facts").inner_text()
        )
    assert 1 <= len(names) <= options
    opened.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light"), (390, "dark")])
def test_it_fits_and_follows_the_colour_scheme(browser: Any, report: Path, width: int, scheme: str) -> None:
    opened = Opened(browser, report, width, scheme)
    wide = opened.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    opened.scrub(5)
    shot = opened.page.screenshot(timeout=PATIENCE)
    image = np.asarray(Image.open(io.BytesIO(shot)).convert("L"))
    paper = np.median(image)
    assert paper < 60 if scheme == "dark" else paper > 230
    # Something is drawn in both panes.
    canvas = opened.picture()
    halves = np.array_split(canvas, 2, axis=0 if width < 560 else 1)
    assert all(len(np.unique(h.reshape(-1, 3), axis=0)) > 100 for h in halves)
    opened.close()

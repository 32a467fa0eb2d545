"""The page of a sweep in a real browser, at the width of a phone and of a desk."""

import json
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from prefsweep.report import report
from recorded import write_completions, write_run

CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium"))
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium, or CHROMIUM=..."),
]
# What a test asks of the page is computed in it and left in its title, which the dump shows.
PROBE = "<script>addEventListener('load', () => {{ document.title = JSON.stringify({expression}); }});</script>"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    for seed in (1, 2, 3):
        for method, score in (("base", 0.0), ("dpo", 10.0), ("sft", 9.0)):
            run = write_run(tmp_path / "s", method, seed)
            write_completions(run, {"judge/mean": [score, score + seed, score - 1], "judge/win_rate": [1.0, 0.0, 0.5]})
    run = write_run(tmp_path / "s", "dpo", 4, status="failed", error="RuntimeError: out of <memory>")
    (run / "job.log").write_text("a line\n" + "x" * 500 + "\nRuntimeError: out of <memory>\n")
    report(tmp_path / "s")
    return tmp_path / "s" / "report.html"


def chromium(page: Path, width: int, *options: str) -> str:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={width},900", f"--user-data-dir={page.parent}/profile", "--virtual-time-budget=3000"]
    done = subprocess.run([*command, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def ask(page: Path, expression: str, width: int = 1280) -> object:
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text().replace("</body>", PROBE.format(expression=expression) + "</body>"))
    match = re.search(r"<title>(.*?)</title>", chromium(probed, width, "--dump-dom"), re.DOTALL)
    assert match
    return json.loads(match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_no_wider_than_the_window(page: Path, width: int) -> None:
    # Chromium's window is never narrower than 500 pixels: the phone is a frame of its own width.
    frame = page.with_name("frame.html")
    source = json.dumps(page.read_text()).replace("</", "<\\/")
    frame.write_text(
        f"<!doctype html><title></title><body><iframe width={width} height=800></iframe><script>"
        f"const frame = document.querySelector('iframe'); frame.srcdoc = {source};"
        "frame.onload = () => { const page = frame.contentDocument.documentElement;"
        "document.title = JSON.stringify([page.scrollWidth, page.clientWidth]); };</script>"
    )
    match = re.search(r"<title>\[(\d+),(\d+)\]</title>", chromium(frame, 1400, "--dump-dom"))
    assert match
    assert int(match[1]) <= int(match[2]) and abs(int(match[2]) - width) <= 20


def test_ten_columns_fit_a_window_of_1400_pixels(tmp_path: Path) -> None:
    """As many as the demo has, with intervals as wide as its own: the table does not scroll."""
    rates, scores = ("judge/win_rate", "text/ended"), ("judge/mean", "judge/well_formed", "kl/base", "text/length")
    for seed in (1, 2, 3):
        for method, shift in (("base", 0.0), ("sft+dpo", 1.0)):
            own = {"frontier/efficiency": 0.5 + seed / 10, "preference/accuracy": 0.9 + seed / 100}
            run = write_run(tmp_path / "s", method, seed, own if method != "base" else {})
            values = {name: [30 * (name == "text/length") + shift + seed / 7, 0.1, 0.3] for name in scores}
            write_completions(run, values | {name: [1.0, 0.5, 0.0] for name in rates})
    page = report(tmp_path / "s")[-1]
    assert ask(page, "document.querySelectorAll('.sortable th').length", 1400) == 10
    assert ask(
        page, "[...document.querySelectorAll('.scroll')].map(box => box.scrollWidth > box.clientWidth)", 1400
    ) == [False]


@pytest.mark.parametrize("width", [390, 1280])
def test_it_can_be_looked_at(page: Path, width: int) -> None:
    shot = page.with_name(f"{width}.png")
    chromium(page, width, f"--screenshot={shot}")
    assert struct.unpack(">I", shot.read_bytes()[16:20])[0] >= width and shot.stat().st_size > 10_000


def test_a_click_on_a_heading_sorts_by_number(page: Path) -> None:
    expression = (
        (
            "(() => {{ const heads = document.querySelectorAll('th button'); const column = [];"
            " for (const times of [1, 2]) {{ heads[1].click();"
            " column.push([...document.querySelectorAll('tbody tr')].map(row => row.cells[0].innerText)); }}"
            " return column; }})()"
        )
        .replace("{{", "{")
        .replace("}}", "}")
    )
    assert ask(page, expression) == [["dpo", "sft", "base"], ["base", "sft", "dpo"]]


def test_every_cell_leads_to_its_runs_and_every_image_is_there(page: Path) -> None:
    links = (
        "[...document.querySelectorAll('td a')].map(link => document.querySelector(link.getAttribute('href')) !== null)"
    )
    targets_exist = ask(page, links)
    assert isinstance(targets_exist, list) and len(targets_exist) == 9 and all(targets_exist)
    images = ask(page, "[...document.images].map(image => image.complete && image.naturalWidth > 0)")
    assert isinstance(images, list) and images and all(images)


def test_it_asks_nothing_of_the_network(page: Path) -> None:
    assert ask(page, "performance.getEntriesByType('resource').filter(entry => !entry.name.startsWith('data:'))") == []

"""Slider to redraw of the BlockExplorer, measured in a real browser.

    python benchmarks/widgets.py [--moves 12] [--browser chromium]

Opens the widget in a JupyterLab on loopback, moves its sliders with the arrow keys, and takes the
time in the page: from the key to the frame in which the last plot that changes has changed. The
last line of the output is JSON, and the exit code 1 if a target is missed.
Needs `pip install -e '.[lab,test]'` and chromium.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
from playwright.sync_api import Locator, Page, sync_playwright

TARGETS = {"median_ms": 150, "p95_ms": 300}
SLIDERS = ("sharpness", "roughness", "overlap", "strength", "offset", "closed form")
CELL = """from fpkit import widgets
widgets.BlockExplorer(upsampling="deconv", activation="relu", sharpness=-0.5, roughness=0.2,
                      overlap=0.2, degree=1)"""
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
# before the kernel has said what it is, "run all" may do nothing
RUN_ALL = """async () => {
    const session = window.jupyterapp.shell.currentWidget.sessionContext;
    await session.ready;
    await session.session.kernel.info;
    await window.jupyterapp.commands.execute('notebook:run-all-cells');
}"""
# Pages tell nobody when they painted: the task after the next frame's callbacks comes after it.
# Only the plots are watched: the slider moves its handle at once.
CLOCK = """() => {
    const clock = window.fpkitClock = {start: 0, first: 0, last: 0};
    document.addEventListener('keydown', () => {
        clock.start = performance.now(); clock.first = clock.last = 0;
    }, true);
    const drawn = new MutationObserver(() => requestAnimationFrame(() => setTimeout(() => {
        clock.last = performance.now(); clock.first = clock.first || clock.last;
    })));
    const seen = {subtree: true, childList: true, attributes: true};
    for (const plot of document.querySelectorAll('.jp-OutputArea .js-plotly-plot'))
        drawn.observe(plot, seen);
}"""
QUIET = """() => {
    const clock = window.fpkitClock;
    return clock.last > 0 && performance.now() - clock.last > 250;
}"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moves", type=int, default=12, help="of each slider (default: 12)")
    parser.add_argument("--browser", default=shutil.which("chromium"), help="path of chromium")
    options = parser.parse_args()
    if options.browser is None:
        parser.error("no chromium on the PATH: give its path with --browser")
    with tempfile.TemporaryDirectory() as folder, jupyterlab(Path(folder)) as url:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=options.browser, args=FLAGS)
            page = browser.new_page(viewport={"width": 1400, "height": 1400})
            widget = open_widget(page, url)
            times = {name: moves(page, widget, name, options.moves) for name in SLIDERS}
            browser.close()
    for name, several in times.items():
        print(f"{name:12} median {statistics.median(several):4.0f} ms, most {max(several):4.0f} ms")
    everything = [value for several in times.values() for value in several]
    report = {
        "moves": len(everything),
        "median_ms": round(statistics.median(everything), 1),
        "p95_ms": round(float(np.percentile(everything, 95)), 1),
        "targets": TARGETS,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(report))
    return int(any(report[name] > target for name, target in TARGETS.items()))


def moves(page: Page, widget: Locator, name: str, count: int) -> list[float]:
    """Milliseconds of `count` steps of a slider, first to the right, then back."""
    slider(widget, name).focus()
    found = []
    for i in range(count + 1):
        page.keyboard.press("ArrowRight" if i % 12 < 6 else "ArrowLeft")
        page.wait_for_function(QUIET, timeout=20_000, polling=100)
        clock = page.evaluate("window.fpkitClock")
        if i:  # the first move of a slider warms the caches of the page
            found.append(clock["last"] - clock["start"])
    return found


def slider(widget: Locator, name: str) -> Locator:
    """The handle of the slider with this label."""
    label = widget.page.get_by_text(name, exact=True)
    return widget.locator(".widget-slider").filter(has=label).get_by_role("slider")


def open_widget(page: Page, url: str) -> Locator:
    """Run the notebook's cell and wait until its plots are there and quiet."""
    page.set_default_timeout(120_000)
    page.goto(url)
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    plots = page.locator(".jp-OutputArea .js-plotly-plot .hm image")
    page.evaluate(RUN_ALL)
    plots.nth(2).wait_for(state="attached")
    page.wait_for_timeout(2000)
    page.evaluate(CLOCK)
    return page.locator(".jp-OutputArea .widget-vbox").first


@contextmanager
def jupyterlab(home: Path) -> Iterator[str]:
    """Serve a notebook of one cell; gives its address in JupyterLab."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    (home / "served").mkdir()
    nbformat.write(notebook, home / "served" / "block.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={home}/served",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    folders = {
        f"JUPYTER{name}_DIR": str(home / name)
        for name in ("LAB_SETTINGS", "LAB_WORKSPACES", "_CONFIG", "_RUNTIME")
    }
    url = f"http://127.0.0.1:{port}/lab/tree/block.ipynb"
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | folders, stdout=log, stderr=log)
        try:
            _wait_until_serving(url, server, home / "log")
            yield url
        finally:
            server.terminate()
            server.wait(30)


def _wait_until_serving(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"JupyterLab does not serve {url}:\n{log.read_text()}")


if __name__ == "__main__":
    sys.exit(main())

"""The course in a real browser, as a student meets it: JupyterLab, every lesson, every slider.

Screenshots are kept in tests/artifacts/ (not in the repository). With the environment variable
FPKIT_TOUR set to a folder, those that the tour shows are written there as well (make tour).
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
REPO = Path(__file__).parent.parent
ARTIFACTS = Path(__file__).parent / "artifacts"
LESSONS = sorted(path.stem for path in (REPO / "notebooks").glob("[0-9]*.ipynb"))
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# the whole page in the document (JupyterLab leaves out what is not in view), and no pop-ups
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
ERROR = '[data-mime-type="application/vnd.jupyter.error"]'
# every code cell has its number, or one failed and the rest did not run
ALL_CELLS_RAN = f"""() => document.querySelector('{ERROR}')
    || [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].every(
        cell => /\\d/.test(cell.querySelector('.jp-InputPrompt').textContent))"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {NAMES} is on the PATH"),
]


@contextmanager
def served(command: list[str], url: str, log: Path, **folders: Path) -> Iterator[None]:
    """Run a server until it answers at `url`, and end it afterwards."""
    environment = os.environ | {name: str(folder) for name, folder in folders.items()}
    with log.open("w") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        try:
            _wait_until_serving(url, server, log)
            yield
        finally:
            server.terminate()
            server.wait(20)


def _wait_until_serving(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=30).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.3)
    raise RuntimeError(f"nothing is served at {url}:\n{log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def jupyterlab(theme: str, home: Path) -> Iterator[str]:
    """URL of a JupyterLab on loopback that serves a copy of the notebooks."""
    shutil.copytree(REPO / "notebooks", home / "notebooks")
    chosen = {"apputils-extension/themes": {"theme": f"JupyterLab {theme}"}}
    for name, values in (SETTINGS | chosen).items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    port = free_port()
    url = f"http://127.0.0.1:{port}/lab/tree"
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={home}/notebooks",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
    }
    with served(command, url, home / "log", **folders):
        yield url


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with jupyterlab("Light", tmp_path_factory.mktemp("light")) as url:
        yield url


@pytest.fixture
def dark(tmp_path: Path) -> Iterator[str]:
    with jupyterlab("Dark", tmp_path) as url:
        yield url


@pytest.fixture
def page() -> Iterator["playwright.Page"]:
    ARTIFACTS.mkdir(exist_ok=True)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def run_all(page: "playwright.Page", url: str) -> None:
    """Open a notebook, run all its cells from nothing, and wait until the last one is done."""
    page.goto(url)
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.get_by_text("Python 3", exact=False).first.wait_for()
    idle(page)
    page.evaluate("() => window.jupyterapp.commands.execute('editmenu:clear-all')")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    try:
        page.wait_for_function(ALL_CELLS_RAN, timeout=300_000)
    except playwright.TimeoutError:
        page.screenshot(path=ARTIFACTS / "timeout.png")
        raise
    idle(page)
    page.wait_for_timeout(1000)  # what the last cell shows is drawn


def idle(page: "playwright.Page") -> None:
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').first.wait_for()


def assert_no_error(page: "playwright.Page") -> None:
    """Neither an error output nor a widget that says so, nor one that failed to be drawn."""
    for what in (
        ERROR,
        ".jp-OutputArea [role=alert]",
        ".jp-OutputArea .jupyter-widgets-error-widget",
    ):
        found = page.locator(what)
        assert found.count() == 0, found.first.inner_text()


def move_every_slider(page: "playwright.Page") -> int:
    """To its upper end, to its lower one and back, by keyboard; the number of sliders."""
    sliders = page.locator(".jp-OutputArea [role=slider]:visible")
    count = sliders.count()
    for i in range(count):
        slider = sliders.nth(i)
        before = slider.get_attribute("aria-valuenow")
        slider.focus()
        seen = set()
        for key in ("End", "Home"):
            slider.press(key)
            page.wait_for_timeout(100)
            idle(page)
            seen.add(slider.get_attribute("aria-valuenow"))
        assert len(seen) == 2, f"slider {i} stays at {before}"
        assert_no_error(page)
    return count


def screenshot_of_everything(page: "playwright.Page", file: Path) -> None:
    """The notebook scrolls inside the page: make the window as high as the notebook."""
    cells = page.locator(".jp-Notebook .jp-Cell")
    height = sum(cell.bounding_box()["height"] + 10 for cell in cells.all())
    page.set_viewport_size({"width": 1400, "height": int(height) + 200})
    page.locator(".jp-Notebook .jp-WindowedPanel-outer").first.evaluate("e => e.scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    page.screenshot(path=file)
    page.set_viewport_size({"width": 1400, "height": 1000})


def tour(shown: "playwright.Locator", name: str) -> None:
    """A screenshot for the artefacts, and in 128 colours for the tour if that is being made."""
    png = shown.screenshot(path=ARTIFACTS / f"{name}.png")
    if folder := os.environ.get("FPKIT_TOUR"):
        picture = Image.open(BytesIO(png)).convert("RGB").quantize(128)
        picture.save(REPO / folder / f"{name}.png", optimize=True)


def widget_with(page: "playwright.Page", text: str) -> "playwright.Locator":
    """The outermost widget of the notebook that holds this text."""
    return page.locator(".jp-OutputArea .widget-vbox").filter(has_text=text).first


def pixels(widget: "playwright.Locator") -> str:
    """What the first heat map of a widget shows, as the browser drew it."""
    image = widget.locator(".js-plotly-plot .hm image").first
    image.wait_for(state="attached")
    return image.get_attribute("href") or image.get_attribute("xlink:href") or ""


@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_runs_and_its_sliders_move(lesson: str, light: str, page: "playwright.Page") -> None:
    run_all(page, f"{light}/{lesson}.ipynb")
    assert_no_error(page)
    move_every_slider(page)
    screenshot_of_everything(page, ARTIFACTS / f"{lesson}.png")


@pytest.mark.parametrize("lesson", LESSONS[:1])
def test_dark_theme(lesson: str, dark: str, page: "playwright.Page") -> None:
    run_all(page, f"{dark}/{lesson}.ipynb")
    assert page.locator('body[data-jp-theme-light="false"]').count() == 1
    assert_no_error(page)
    screenshot_of_everything(page, ARTIFACTS / f"{lesson}_dark.png")

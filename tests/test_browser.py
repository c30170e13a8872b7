"""JupyterLab in a real browser: the notebook as a student meets it.

Screenshots are kept in tests/artifacts/ (not in the repository).
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
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium")
REPO = Path(__file__).parent.parent
ARTIFACTS = Path(__file__).parent / "artifacts"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# the whole page in the document (JupyterLab leaves out what is not in view), and no pop-ups
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
# every code cell has a number, and the widgets are those of this run
ALL_CELLS_RAN = """() => {
    const cells = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')];
    const prompts = cells.map(cell => cell.querySelector('.jp-InputPrompt').textContent);
    return document.querySelector('.jp-OutputArea .widget-dropdown')
        && prompts.every(prompt => /\\d/.test(prompt));
}"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]


@pytest.fixture(scope="module", params=["Light", "Dark"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a JupyterLab on loopback that serves a copy of the notebooks, in either theme."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(REPO / "notebooks", home / "notebooks")
    theme = {"apputils-extension/themes": {"theme": f"JupyterLab {request.param}"}}
    for name, values in (SETTINGS | theme).items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/lab/tree"
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={home}/notebooks",
    ]  # fmt: skip
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
    }
    environment = os.environ | {name: str(folder) for name, folder in folders.items()}
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_until_serving(url, server, home / "log")
            yield url
        finally:
            server.terminate()
            server.wait(20)


def _wait_until_serving(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.3)
    raise RuntimeError(f"JupyterLab does not serve {url}:\n{log.read_text()}")


@pytest.fixture
def page(lab: str) -> Iterator["playwright.Page"]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def run_all(page: "playwright.Page", url: str) -> None:
    """Open a notebook, run all its cells and wait until the last one is done."""
    page.goto(url)
    page.get_by_text("Python 3", exact=False).first.wait_for()
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.locator('[data-status="idle"]').first.wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    try:
        page.wait_for_function(ALL_CELLS_RAN, timeout=240_000)
    except playwright.TimeoutError:
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / "timeout.png")
        raise


def pixels(page: "playwright.Page") -> str:
    """What the fingerprint's heat map shows, as the browser drew it."""
    image = page.locator(".jp-OutputArea .js-plotly-plot .hm image").first
    image.wait_for(state="attached")
    return image.get_attribute("href") or image.get_attribute("xlink:href") or ""


def test_notebook_00_runs_and_its_widget_redraws(lab: str, page: "playwright.Page") -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    run_all(page, f"{lab}/00_start_here.ipynb")
    theme = "dark" if page.locator('body[data-jp-theme-light="false"]').count() else "light"
    errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]')
    assert errors.count() == 0, errors.first.inner_text()

    widget = page.locator(".jp-OutputArea .widget-vbox").filter(has_text="Make model").first
    widget.scroll_into_view_if_needed()
    status = widget.locator("[role=status]")
    before = pixels(page)
    assert before.startswith("data:image/png")
    for label, option in (("upsampling", "deconv"), ("activation", "tanh"), ("blocks", "1")):
        widget.get_by_label(label, exact=True).select_option(label=option)
    playwright.expect(status).to_contain_text("Settings changed")
    widget.get_by_role("button", name="Make model").click()
    playwright.expect(status).to_contain_text("K1-L1-Udeconv-Atanh-Nnone-Spost", timeout=60_000)
    playwright.expect(status).to_contain_text("residual", timeout=60_000)
    page.wait_for_timeout(1000)
    after = pixels(page)
    assert after != before

    widget.get_by_label("show", exact=True).select_option(label="outputs / inputs")
    page.wait_for_timeout(1000)
    assert pixels(page) != after
    assert widget.locator("figure img").count() == 4  # three from the notebook, one from here
    widget.screenshot(path=ARTIFACTS / f"00_explorer_{theme}.png")
    _screenshot_of_everything(page, ARTIFACTS / f"00_start_here_{theme}.png")


def _screenshot_of_everything(page: "playwright.Page", file: Path) -> None:
    """The notebook scrolls inside the page: make the window as high as the notebook."""
    cells = page.locator(".jp-Notebook .jp-Cell")
    height = sum(cell.bounding_box()["height"] + 10 for cell in cells.all())
    page.set_viewport_size({"width": 1400, "height": int(height) + 200})
    page.locator(".jp-Notebook .jp-WindowedPanel-outer").first.evaluate("e => e.scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    page.screenshot(path=file)

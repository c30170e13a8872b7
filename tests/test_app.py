"""`fpkit app`: what it refuses without starting, and the page in a real browser."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fpkit import cli, cli_app
from fpkit.images import write_png
from fpkit.procedural import procedural_images

ARTIFACTS = Path(__file__).parent / "artifacts"
CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("module", ["voila", "ipykernel", "ipywidgets"])
def test_a_missing_part_of_jupyter_is_named(monkeypatch, capsys, module):
    monkeypatch.setattr(cli_app, "find_spec", lambda name: None if name == module else object())
    assert cli.main(["app", "--no-browser"]) == 1
    assert f"{module} is not installed: pip install 'fpkit[lab]'" in capsys.readouterr().err


def test_a_port_in_use_is_an_error_before_anything_starts(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["app", "--no-browser", "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert f"port {port} cannot be used" in error and "--port" in error


def test_a_port_must_be_a_port(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["app", "--port", "70000"])
    assert stop.value.code == 2 and "1 to 65535, got 70000" in capsys.readouterr().err


def test_the_server_is_closed_to_others():
    traits = cli_app.server_traits(8866, "secret")
    assert traits["Voila"]["ip"] == "127.0.0.1" and traits["Voila"]["token"] == "secret"
    assert traits["Voila"]["tornado_settings"]["allow_remote_access"] is False
    assert traits["Voila"]["port_retries"] == 0
    from voila.app import Voila
    from voila.configuration import VoilaConfiguration

    for section, owner in (("Voila", Voila), ("VoilaConfiguration", VoilaConfiguration)):
        assert set(traits[section]) <= set(owner.class_trait_names(config=True))


def test_the_page_runs_as_a_cell_and_holds_both_widgets(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    code = compile(cli_app.PAGE.read_text("utf-8"), "cell", "exec")
    exec(code, {"__name__": "__main__"})
    (tab,) = shown
    names = [type(child).__name__ for child in tab.children]
    assert names == ["AttributionDesk", "SynthesisExplorer"] and len(tab.titles) == 2


# ---- the real thing ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of a running app, with its token; Ctrl-C must end it."""
    command = [sys.executable, "-m", "fpkit", "app", "--no-browser", "--port", str(free_port())]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env=os.environ, **quiet) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 0
        finally:
            server.kill()


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return 403 if "/login" in answer.url else answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.browser
@pytest.mark.timeout(600)
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_an_upload_gets_a_verdict_in_the_browser(address, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    assert status(address.split("?")[0]) == 403  # without the token
    assert status(address, Host="example.org") == 403
    write_png(tmp_path / "picture.png", procedural_images(1, 160, seed=3)[0])
    (tmp_path / "broken.png").write_bytes(b"no image")
    ARTIFACTS.mkdir(exist_ok=True)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1050, "height": 1400})
        page.set_default_timeout(180_000)
        failures = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(address)
        page.get_by_role("button", name="Load an example").click()
        page.get_by_text("which is not enrolled").wait_for()
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Upload images").click()
        chooser.value.set_files([tmp_path / "picture.png", tmp_path / "broken.png"])
        page.get_by_text("broken.png: not an image").wait_for()
        verdict = page.get_by_role("status", name="verdict")
        playwright.expect(verdict).to_contain_text(
            re.compile("picture.png: (accepted|unsure|refused): .*score -?[0-9.]+")
        )
        page.locator(".js-plotly-plot .hm image").first.wait_for(state="attached")
        page.screenshot(path=ARTIFACTS / "app.png", full_page=True)
        page.get_by_role("tab", name="Synthesis").click()
        page.get_by_role("button", name="Make model").first.wait_for()
        page.screenshot(path=ARTIFACTS / "app_synthesis.png", full_page=True)
        browser.close()
    # anywidget says so after 2 s, and goes on loading: a busy machine is no failure
    assert not [text for text in failures if "Failed to initialize model" not in text]

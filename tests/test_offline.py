"""fpkit needs no network: all of it is used in processes that have none, and nobody asks for one.

tests/offline/sitecustomize.py refuses every address and notes who asked. Where the system lets us,
the processes live in a network namespace without any device as well, which stops code in C too.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fpkit.cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
GUARD = ROOT / "tests" / "offline"
SERVERS = {"lab", "app"}
FAST = ("verbs", "assets", "widgets", "lesson_imports", "pipelines")


def without_network() -> list[str]:
    """What to put before a command so that it has no network device; empty where that is denied."""
    words = ["unshare", "--map-root-user", "--net", "--"]
    if shutil.which("unshare") is None:
        return []
    return words if subprocess.run([*words, "true"], capture_output=True).returncode == 0 else []


def guarded(log: Path, *, loopback: bool = False) -> dict[str, str]:
    """Environment of a process that is refused every address, or every one but its own machine."""
    places = os.pathsep.join(filter(None, (str(GUARD), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": places, "FPKIT_OFFLINE_LOG": str(log)}
    return environment | ({"FPKIT_OFFLINE_LOOPBACK": "1"} if loopback else {})


def use(folder: Path, *parts: str, loopback: bool = False) -> dict[str, list[str]]:
    """Parts of tests/offline/everything.py, used without a network; what they used."""
    log = folder / "attempts"
    prefix = [] if loopback else without_network()
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "error", GUARD / "everything.py", folder, *parts],
        env=guarded(log, loopback=loopback),
        capture_output=True,
        text=True,
    )
    attempts = log.read_text("utf-8") if log.is_file() else ""
    assert done.returncode == 0, done.stdout + done.stderr + attempts
    assert not attempts
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("offline")


@pytest.fixture(scope="module")
def used(folder) -> dict[str, list[str]]:
    return use(folder, *FAST)


def all_verbs() -> set[str]:
    """Every verb, those of ``zoo`` with it."""
    found = set()
    waiting = [("", build_parser())]
    while waiting:
        name, parser = waiting.pop()
        inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        for action in inner:
            waiting += [(f"{name} {verb}".strip(), sub) for verb, sub in action.choices.items()]
        if not inner:
            found.add(name)
    return found


def names_of(function: str) -> set[str]:
    """What a part of everything.py yields, read from its text."""
    text = (GUARD / "everything.py").read_text("utf-8")
    body = re.search(rf"^def {function}\(.*?(?=^\S)", text, re.DOTALL | re.MULTILINE).group()
    return set(re.findall(r'yield "([^"]+)"', body))


# ---- the guard itself --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "own"),
    [
        ("import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)", False),
        ("import socket; socket.getaddrinfo('example.org', 80)", False),
        ("import socket; socket.gethostbyname('example.org')", False),
        ("import socket; socket.socket(2, 2).sendto(b'x', ('192.0.2.1', 53))", False),
        ("import urllib.request as u; u.urlopen('https://example.org', timeout=1)", False),
        ("import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)", True),
    ],
)
def test_the_guard_refuses_and_remembers(tmp_path, code, own):
    silent = f"try:\n    {code}\nexcept OSError as error:\n    print(type(error).__name__)"
    log = tmp_path / "log"
    run = [sys.executable, "-c", silent]
    done = subprocess.run(run, env=guarded(log), capture_output=True, text=True)
    assert done.stdout == "PermissionError\n", done.stderr
    assert len(log.read_text("utf-8").splitlines()) == 1
    log.unlink()
    done = subprocess.run(run, env=guarded(log, loopback=True), capture_output=True, text=True)
    assert log.is_file() is not own
    assert (done.stdout == "ConnectionRefusedError\n") is own


# ---- everything is used, and asks nobody -------------------------------------------------------


def test_no_verb_is_left_out(used):
    slow = names_of("long_verbs")
    assert set(used["verbs"]) == names_of("verbs")
    assert set(used["verbs"]) | slow | SERVERS == all_verbs()


def test_every_asset_is_read(used):
    shipped = {path.relative_to(ROOT / "data").parts[0]
               for path in (ROOT / "data").rglob("*.safetensors")}  # fmt: skip
    assert set(used["assets"]) == shipped and len(shipped) >= 7


def test_every_widget_is_made(used):
    from fpkit import widgets

    assert set(used["widgets"]) == set(widgets.__all__)


def test_every_estimator_and_the_index_are_used(used):
    from sklearn.base import BaseEstimator

    from fpkit import estimators

    made = {name for name, value in vars(estimators).items()
            if isinstance(value, type) and issubclass(value, BaseEstimator)}  # fmt: skip
    assert set(used["pipelines"]) == made - {"BaseEstimator"} | {"index"}


def test_the_imports_of_every_lesson_work(used):
    lessons = {path.stem for path in (ROOT / "notebooks" / "src").glob("[0-9]*.py")}
    assert set(used["lesson_imports"]) == lessons and len(lessons) >= 11


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a minute of processor time
def test_training_calibration_export_and_grading_ask_nobody(tmp_path):
    used = use(tmp_path, "long_verbs", loopback=True)  # a kernel is spoken to over loopback
    assert set(used["long_verbs"]) == names_of("long_verbs")


# ---- what a browser would load -----------------------------------------------------------------


class Loaded(HTMLParser):
    """Addresses that a browser asks for on its own when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag == "link"):
                self.addresses.append(value or "")


def remote(html: str) -> list[str]:
    """Addresses of other machines among those that a page loads."""
    page = Loaded()
    page.feed(html)
    imports = re.findall(r"@import\s+(?:url\()?['\"]?([^'\")\s;]+)", html)
    return [one for one in (*page.addresses, *imports) if re.match(r"(\w+:)?//", one.strip())]


def test_remote_addresses_are_found():
    assert remote('<script src="https://cdn.example/x.js"></script>') == [
        "https://cdn.example/x.js"
    ]
    assert remote('<link rel="stylesheet" href="//cdn.example/x.css">') == ["//cdn.example/x.css"]
    assert remote("<style>@import url('http://a.example/x.css');</style>") == [
        "http://a.example/x.css"
    ]
    assert not remote('<a href="https://a.example">text</a><img src="data:image/png;base64,AA==">')


def test_a_fingerprint_as_a_page_loads_nothing(used, folder):
    html = (folder / "fingerprint.html").read_text("utf-8")
    page = Loaded()
    page.feed(html)
    assert page.scripts >= 2 and len(html) > 1_000_000  # plotly is inside
    assert not remote(html)


def test_no_lesson_has_an_output_that_loads_something():
    found = 0
    for path in sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            for output in cell.get("outputs", ()):
                html = "".join(output.get("data", {}).get("text/html", ""))
                found += bool(html)
                assert not remote(html), path
    assert found > 20


# ---- the servers -------------------------------------------------------------------------------


def first_address(server: subprocess.Popen, said: Path) -> str:
    """The address with a token that a server prints."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+/\S*token=\S+", said.read_text("utf-8"))
        if found:
            return found.group()
        time.sleep(0.3)
    raise RuntimeError(f"no address was printed:\n{said.read_text('utf-8')}")


@pytest.fixture
def server(tmp_path) -> Iterator:
    """Starts a verb that serves, on a port of its choice, refused every other machine."""
    processes = []

    def start(verb: str, *words: str) -> tuple[str, Path]:
        said, log = tmp_path / "said", tmp_path / "attempts"
        folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "RUNTIME")}
        with said.open("w") as out:
            command = [sys.executable, "-m", "fpkit", verb, "--no-browser", *words]
            environment = guarded(log, loopback=True) | folders
            processes.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
        return first_address(processes[-1], said), log

    yield start
    for process in processes:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_the_lab_looks_for_no_news_and_no_updates(server):
    address, log = server("lab", "--port=18971")
    home, token = re.match(r"(http://[^/]+)/.*token=(\w+)", address).groups()
    with urllib.request.urlopen(f"{home}/lab?token={token}") as answer:
        page = answer.read().decode()
    settings = json.loads(re.search(r'id="jupyter-config-data"[^>]*>(.*?)<', page, re.S).group(1))
    assert settings["news"] == {"disabled": True}
    assert settings["extensionManager"]["can_install"] is False
    for part in ("update", "news"):
        with urllib.request.urlopen(f"{home}/lab/api/{part}?token={token}") as answer:
            assert not any(json.loads(answer.read()).values())
    assert not log.is_file(), log.read_text("utf-8")


@pytest.mark.slow
def test_the_app_asks_nobody_and_lets_the_browser_ask_nobody(server):
    address, log = server("app", "--port", "18972")
    with urllib.request.urlopen(address) as answer:
        policy, page = answer.headers["Content-Security-Policy"], answer.read().decode()
    assert "jupyter-config-data" in page
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    hosts = {word for rule in rules.values() for word in rule.split() if "://" in word}
    assert rules["default-src"] == "'self'"
    assert all(re.match(r"ws://(127\.0\.0\.1|localhost):18972$", host) for host in hosts), hosts
    assert not log.is_file(), log.read_text("utf-8")

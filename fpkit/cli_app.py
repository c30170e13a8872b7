"""The verb of the command line that serves the widgets as a web page: ``app``."""

from __future__ import annotations

import argparse
import html
import os
import secrets
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from fpkit.cli_io import Verbs, add_verb, note
from fpkit.jail import FOLDER, Jail

HOST = "127.0.0.1"  # loopback: nobody else on the network sees the page
PORT = 8866
PAGE = Path(__file__).resolve().parent / "app_page.py"
PATIENCE = 60.0  # seconds for the server to start


def add_to(verbs: Verbs) -> None:
    """Declare ``app``."""
    parser = add_verb(
        verbs,
        "app",
        app,
        "serve attribution and synthesis as a page in the browser, for lectures",
        example="fpkit app --folder generators/",
    )
    parser.add_argument(
        "--folder",
        metavar="DIR",
        help="the only folder that the page may read from (none: it takes uploads only)",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"({PORT})")
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address, open no browser"
    )

    def check(arguments: argparse.Namespace) -> None:
        if not 1 <= arguments.port <= 65535:
            parser.error(f"--port must be 1 to 65535, got {arguments.port}")

    parser.set_defaults(check=check)


def app(arguments: argparse.Namespace) -> int:
    """Serve the page on loopback until Ctrl-C."""
    for module in ("voila", "ipykernel", "ipywidgets"):
        if find_spec(module) is None:
            raise ValueError(f"{module} is not installed: pip install 'fpkit[lab]'")
    os.environ.pop(FOLDER, None)
    if arguments.folder is not None:
        os.environ[FOLDER] = str(Jail(Path(arguments.folder)).root)  # the page's process reads it
    _check_free(arguments.port)
    from traitlets.config import Config

    from fpkit.app_server import Server, server_traits

    token = secrets.token_urlsafe(32)
    url = f"http://{HOST}:{arguments.port}/?token={token}"
    with _way_in(url) as file:
        threading.Thread(
            target=_announce,
            args=(url, arguments.port, None if arguments.no_browser else file),
            daemon=True,
        ).start()
        traits = server_traits(arguments.port, token, tracebacks="FPKIT_DEBUG" in os.environ)
        Server.launch_instance(argv=[str(PAGE)], config=Config(traits))
    return 0


@contextmanager
def _way_in(url: str) -> Iterator[Path]:
    """A file that leads a browser to the page: on its command line all could see the token."""
    from jupyter_core.paths import jupyter_runtime_dir, secure_write

    file = Path(jupyter_runtime_dir()) / f"fpkit-app-{os.getpid()}.html"
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with secure_write(str(file)) as out:  # nobody else may read it
        out.write(f'<meta http-equiv="refresh" content="0; url={html.escape(url)}">')
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        if sys.platform != "win32":  # a port whose last connections are still closing is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ValueError(
                f"port {port} cannot be used ({error.strerror}): give another one by --port"
            ) from None


def _announce(url: str, port: int, file: Path | None) -> None:
    """Once the server answers, print its address and, by way of a file, open it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
            continue
        print(url, flush=True)
        note("Ctrl-C ends it; whoever has this address can use the page")
        if file is not None and not webbrowser.open(file.as_uri()):
            note("no browser found: open the address yourself")
        return

"""The verb of the command line that serves the widgets as a web page: ``app``."""

from __future__ import annotations

import argparse
import secrets
import socket
import sys
import threading
import time
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fpkit.cli_io import Verbs, add_verb, note

HOST = "127.0.0.1"  # loopback: nobody else on the network sees the page
PORT = 8866
PAGE = Path(__file__).resolve().parent / "app_page.py"
MAX_UPLOAD = 256 * 2**20  # bytes in one message; the default of 10 MB cuts the connection
PATIENCE = 60.0  # seconds for the server to start


def add_to(verbs: Verbs) -> None:
    """Declare ``app``."""
    parser = add_verb(
        verbs,
        "app",
        app,
        "serve attribution and synthesis as a page in the browser, for lectures",
        example="fpkit app --port 8900",
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
    _check_free(arguments.port)
    from traitlets.config import Config
    from voila.app import Voila

    class Server(Voila):
        def load_config_file(self, *_: Any, **__: Any) -> None:
            """Settings of the user's other servers, such as their address, are not for this one."""

    token = secrets.token_urlsafe(16)
    url = f"http://{HOST}:{arguments.port}/?token={token}"
    threading.Thread(
        target=_announce, args=(url, arguments.port, not arguments.no_browser), daemon=True
    ).start()
    config = Config(server_traits(arguments.port, token))
    Server.launch_instance(argv=[str(PAGE)], config=config)
    return 0


def server_traits(port: int, token: str) -> dict[str, dict[str, Any]]:
    """Traits of the Voila server: loopback only, with a token, one page, no other port.

    The token keeps out other users of the machine; refusing foreign host names keeps out web
    pages that point a name of theirs to 127.0.0.1.
    """
    return {
        "Voila": {
            "ip": HOST,
            "port": port,
            "port_retries": 0,
            "open_browser": False,
            "token": token,
            "log_level": "WARN",
            "tornado_settings": {
                "allow_remote_access": False,
                "websocket_max_message_size": MAX_UPLOAD,
            },
        },
        "VoilaConfiguration": {
            "extension_language_mapping": {".py": "python"},
            "language_kernel_mapping": {"python": "python3"},
            "show_tracebacks": True,
            # what else is installed in JupyterLab is of no use to the page, and delays it
            "extension_allowlist": [
                "@jupyter-widgets/jupyterlab-manager",
                "@voila-dashboards/widgets-manager8",
                "anywidget",
            ],
        },
    }


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


def _announce(url: str, port: int, browse: bool) -> None:
    """Once the server answers, print its address and open it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
            continue
        print(url, flush=True)
        note("Ctrl-C ends it")
        if browse and not webbrowser.open(url):
            note("no browser found: open the address yourself")
        return

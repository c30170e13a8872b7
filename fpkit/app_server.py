"""The web server behind ``fpkit app``: Voila, closed to everybody who has not got the token.

Voila asks for the token where it renders a page or reaches a kernel, but not for its static files,
and knows of foreign host names and origins only in part. Here one guard stands before everything.
"""

import secrets
from functools import partial
from http.client import responses
from inspect import isawaitable
from typing import Any

from jupyter_server.auth.identity import IdentityProvider
from tornado.web import RequestHandler
from voila.app import Voila

HOST = "127.0.0.1"  # loopback: nobody else on the network sees the page
HOSTS = frozenset({HOST, "localhost"})
MAX_MESSAGE = 16 * 2**20  # bytes; uploads come in parts of 2 MiB
MAX_BODY = 2**20  # of a request: the page sends none
_NO_TOKEN = "403: open the address that `fpkit app` printed, with its token\n"
_FOREIGN = "403: this page answers to 127.0.0.1 and localhost, and to itself, only\n"


class TokenOnly(IdentityProvider):
    """Whoever has the token may come in; there is no form to try others at."""

    def get_handlers(self) -> list[tuple[str, object]]:
        """No page to log in or out."""
        return []


class Server(Voila):
    """Voila with a guard before every handler."""

    def load_config_file(self, *_: Any, **__: Any) -> None:
        """Settings of the user's other servers, such as their address, are not for this one."""

    def init_handlers(self) -> list:
        """Voila's handlers, each behind the guard."""
        return [(path, guarded(cls), *more) for path, cls, *more in super().init_handlers()]

    def listen(self) -> None:
        """Listen, with small requests only."""
        self.app.listen = partial(self.app.listen, max_body_size=MAX_BODY)
        super().listen()


def guarded(handler: type[RequestHandler]) -> type[RequestHandler]:
    """A handler that answers 403 unless host, origin and token are right."""

    class Guarded(handler):  # type: ignore[valid-type, misc]
        async def prepare(self) -> None:
            refusal = _refusal(self)
            if refusal:
                self.set_status(403)
                self.set_header("Content-Type", "text/plain; charset=utf-8")
                RequestHandler.finish(self, refusal)
                return
            prepared = super().prepare()
            if isawaitable(prepared):
                await prepared

        def write_error(self, status_code: int, **_: Any) -> None:
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            RequestHandler.finish(self, f"{status_code}: {responses[status_code]}\n")

    return Guarded


def _refusal(handler: RequestHandler) -> str:
    """Why a request is not answered; empty if it is."""
    request = handler.request
    origin = request.headers.get("Origin")
    if request.host_name not in HOSTS or origin not in (None, f"http://{request.host}"):
        return _FOREIGN
    provider = handler.settings["identity_provider"]
    given = provider.get_token(handler) or ""
    if given:
        same = secrets.compare_digest(given.encode(), provider.token.encode())
        return "" if same else _NO_TOKEN
    # a cookie comes along with what other pages ask for; browsers say who asks
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return _FOREIGN
    return "" if provider.get_user_cookie(handler) else _NO_TOKEN


def server_traits(port: int, token: str, *, tracebacks: bool = False) -> dict[str, dict[str, Any]]:
    """Traits of the server: loopback only, with a token, one page, no other port, no other site.

    The token keeps out other users of the machine; refusing foreign host names keeps out web
    pages that point a name of theirs to 127.0.0.1. The browser may load nothing from elsewhere,
    and send nothing there.

    Parameters
    ----------
    port, token
        To listen at, and to ask for.
    tracebacks
        Show them in the page: they name files of this machine.
    """
    own = f"'self' ws://{HOST}:{port} ws://localhost:{port}"
    policy = {
        "default-src": "'self'",
        "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob:",  # Voila's page, widgets
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "connect-src": own,
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{what} {where}" for what, where in policy.items()),
        "Referrer-Policy": "no-referrer",  # the address has the token in it
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    return {
        "Voila": {
            "ip": HOST,
            "port": port,
            "port_retries": 0,
            "open_browser": False,
            "token": token,
            "identity_provider_class": TokenOnly,
            "log_level": "WARN",
            "tornado_settings": {
                "allow_remote_access": False,
                "websocket_max_message_size": MAX_MESSAGE,
                "headers": headers,
            },
        },
        "TokenOnly": {"cookie_options": {"samesite": "Strict", "httponly": True}},
        "VoilaConfiguration": {
            "extension_language_mapping": {".py": "python"},
            "language_kernel_mapping": {"python": "python3"},
            "show_tracebacks": tracebacks,
            "file_allowlist": [],
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            # what else is installed in JupyterLab is of no use to the page, and delays it
            "extension_allowlist": [
                "@jupyter-widgets/jupyterlab-manager",
                "@voila-dashboards/widgets-manager8",
                "anywidget",
            ],
        },
    }

"""`fpkit app` and `fpkit lab`: what they refuse, and the page (in a browser: test_browser.py)."""

import os
import socket
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application, RequestHandler, StaticFileHandler
from tornado.websocket import WebSocketHandler

from fpkit import cli, cli_app
from fpkit.app_server import Server, TokenOnly, guarded, server_traits
from fpkit.jail import FOLDER
from fpkit.lab_server import open_to_others

# ---- the command -------------------------------------------------------------------------------


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


def test_a_folder_must_be_one(tmp_path, capsys):
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").touch()
        assert cli.main(["app", "--no-browser", "--folder", str(path)]) == 1
        assert f"{path}: no such folder" in capsys.readouterr().err


def test_what_opens_the_browser_is_for_its_owner_only_and_goes_away(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    with cli_app._way_in("http://127.0.0.1:1/?token=secret") as file:
        assert 'url=http://127.0.0.1:1/?token=secret"' in file.read_text()
        if os.name == "posix":
            assert file.stat().st_mode & 0o077 == 0
    assert not file.exists()


def test_the_folder_reaches_the_page_and_nothing_of_an_earlier_one(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Server, "launch_instance", lambda **_: seen.append(page_folder()))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(cli_app, "_announce", lambda *_: None)
    monkeypatch.setenv(FOLDER, "/")  # whoever set that did not say --folder

    def page_folder() -> str | None:
        return os.environ.get(FOLDER)

    for words, folder in (([], None), (["--folder", str(tmp_path)], str(tmp_path.resolve()))):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        assert cli.main(["app", "--no-browser", "--port", port, *words]) == 0
        assert seen.pop() == folder


# ---- the server --------------------------------------------------------------------------------


def test_the_server_is_closed_to_others():
    traits = server_traits(8866, "secret")
    assert traits["Voila"]["ip"] == "127.0.0.1" and traits["Voila"]["token"] == "secret"
    assert traits["Voila"]["port_retries"] == 0
    settings = traits["Voila"]["tornado_settings"]
    assert settings["allow_remote_access"] is False
    assert settings["websocket_max_message_size"] == 16 * 2**20
    policy = settings["headers"]["Content-Security-Policy"]
    assert "http" not in policy and "*" not in policy and "frame-ancestors 'none'" in policy
    assert traits["VoilaConfiguration"]["show_tracebacks"] is False
    from voila.configuration import VoilaConfiguration

    owners = {"Voila": Server, "VoilaConfiguration": VoilaConfiguration, "TokenOnly": TokenOnly}
    assert set(traits) == set(owners)
    for section, owner in owners.items():
        assert set(traits[section]) <= set(owner.class_trait_names(config=True))


class Plain(RequestHandler):
    async def get(self) -> None:
        provider = self.settings["identity_provider"]
        self.base_url = "/"
        provider.set_login_cookie(self, provider.generate_anonymous_user(self))
        self.write("in")

    post = get

    @property
    def log(self):
        return self.settings["identity_provider"].log


class Socket(WebSocketHandler):
    def on_message(self, message: str) -> None: ...


class Broken(RequestHandler):
    def get(self) -> None:
        open("/nowhere/secret")


class Doors(AsyncHTTPTestCase):
    """A server with one handler of each kind behind the guard."""

    def runTest(self) -> None: ...

    def get_app(self) -> Application:
        traits = server_traits(8866, "secret")["TokenOnly"]
        return Application(
            [
                ("/plain", guarded(Plain)),
                ("/static/(.*)", guarded(StaticFileHandler), {"path": os.path.dirname(__file__)}),
                ("/socket", guarded(Socket)),
                ("/broken", guarded(Broken)),
            ],
            identity_provider=TokenOnly(token="secret", **traits),
            cookie_secret="for this test",
        )

    def status(self, path: str, **options: object) -> int:
        return self.fetch(path, follow_redirects=False, **options).code


@pytest.fixture
def doors():
    case = Doors()
    case.setUp()
    yield case
    case.tearDown()


PATHS = ("/plain", "/static/test_app.py", "/socket", "/broken")
OPENED = {"/plain": 200, "/static/test_app.py": 200, "/socket": 400, "/broken": 500}


@pytest.mark.parametrize("path", PATHS)
def test_no_door_opens_without_the_token(doors, path):
    for query in ("", "?token=", "?token=secre", "?token=secret2", "?token=" + quote("secrét")):
        assert doors.status(path + query) == 403, query
    assert doors.status(path, headers={"Authorization": "token wrong"}) == 403
    assert doors.status(path, headers={"Cookie": 'username-127-0-0-1="2|1:0|forged"'}) == 403
    assert doors.status(f"{path}?token=secret") == OPENED[path]
    assert doors.status(path, headers={"Authorization": "token secret"}) == OPENED[path]


@pytest.mark.parametrize("path", PATHS)
def test_no_door_opens_to_other_hosts_and_origins(doors, path):
    known = f"{path}?token=secret"
    port = doors.get_http_port()
    for host in ("example.org", f"example.org:{port}", "0.0.0.0", "127.0.0.1.example.org"):
        assert doors.status(known, headers={"Host": host}) == 403, host
    for origin in ("http://example.org", "null", "http://127.0.0.1:1", f"https://127.0.0.1:{port}"):
        assert doors.status(known, headers={"Origin": origin}) == 403, origin
    own = {"Origin": f"http://127.0.0.1:{port}"}
    assert doors.status(known, headers=own) == OPENED[path]
    assert doors.status(known, headers={"Host": f"localhost:{port}"}) == OPENED[path]


def test_the_cookie_of_the_token_opens_for_the_page_itself_only(doors):
    cookie = doors.fetch("/plain?token=secret").headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    known = {"Cookie": cookie.split(";")[0]}
    for site, status in (("none", 200), ("same-origin", 200), ("same-site", 403), ("x", 403)):
        assert doors.status("/plain", headers=known | {"Sec-Fetch-Site": site}) == status
    assert doors.status("/plain", headers=known) == 200
    assert doors.status("/plain", method="POST", body="", headers=known) == 200
    foreign = known | {"Origin": "http://127.0.0.1:1"}
    assert doors.status("/plain", method="POST", body="", headers=foreign) == 403


def test_refusals_and_errors_name_nothing_of_the_machine(doors):
    assert doors.fetch("/plain").body.startswith(b"403: open the address")
    answer = doors.fetch("/broken?token=secret")
    assert (answer.code, answer.body) == (500, b"500: Internal Server Error\n")


# ---- the page ----------------------------------------------------------------------------------


def run_page(monkeypatch) -> object:
    """What the page shows, run as Voila runs it."""
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    code = compile(cli_app.PAGE.read_text("utf-8"), "cell", "exec")
    exec(code, {"__name__": "__main__"})
    return shown[-1]


def test_the_page_runs_as_a_cell_holds_both_widgets_and_reads_nothing(monkeypatch):
    monkeypatch.delenv(FOLDER, raising=False)
    tab = run_page(monkeypatch)
    names = [type(child).__name__ for child in tab.children]
    assert names == ["AttributionDesk", "SynthesisExplorer"] and len(tab.titles) == 2
    assert all(panel.hides_folders for panel in tab.children)
    desk = tab.children[0]
    desk.controls.ask_path.value = os.path.dirname(__file__)  # a message that no button sends
    desk.controls.ask_button.click()
    desk.wait(30)
    assert "takes uploads only" in desk.status and not desk.images


def test_a_page_that_cannot_be_made_says_why_without_folders(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path / "gone"))
    shown = run_page(monkeypatch)
    assert "gone: no such folder" in shown.value and str(tmp_path) not in shown.value
    monkeypatch.setenv("FPKIT_DEBUG", "1")
    with pytest.raises(NotADirectoryError, match=str(tmp_path)):
        run_page(monkeypatch)


# ---- the lab -----------------------------------------------------------------------------------


def lab_server(**changes: object) -> SimpleNamespace:
    known = SimpleNamespace(auth_enabled=changes.pop("auth", True))
    return SimpleNamespace(**{"sock": "", "ip": "localhost", "identity_provider": known} | changes)


def test_the_lab_serves_this_machine_and_asks_for_a_token():
    for ip in ("localhost", "127.0.0.1", "::1"):
        assert open_to_others(lab_server(ip=ip)) == ""
    for ip in ("0.0.0.0", "", "::", "192.168.1.2", "*", "example.org", "localhost.example.org"):
        assert "other machines can reach" in open_to_others(lab_server(ip=ip)), ip
    assert open_to_others(lab_server(sock="/run/lab", ip="0.0.0.0")) == ""
    assert "token and password are empty" in open_to_others(lab_server(auth=False))

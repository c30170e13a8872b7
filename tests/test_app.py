"""`fpkit app`: what it refuses, and its page (in a browser: tests/test_browser.py)."""

import socket

import pytest

from fpkit import cli, cli_app


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

"""JupyterLab as ``fpkit lab`` runs it: it does not start where others could use it.

Whoever reaches a Jupyter server and passes its log-in runs programs as its owner. So this one
listens on this machine only and asks for a token, whatever the command line or a configuration
file says; a person who wants it otherwise has ``jupyter lab`` itself.
"""

import sys
from ipaddress import ip_address

from jupyter_server.serverapp import ServerApp
from jupyterlab.labapp import LabApp


def open_to_others(server: ServerApp) -> str:
    """Why others could use a server that is set up, but not started; empty if they could not."""
    if not server.sock and not _is_loopback(server.ip):
        return (
            f"other machines can reach this address: {server.ip or 'any'}. fpkit lab serves this "
            "machine only. From another one, go through ssh -L 8888:localhost:8888, or start "
            "jupyter lab yourself"
        )
    if not server.identity_provider.auth_enabled:
        return (
            "token and password are empty: everybody on this machine could run programs as you. "
            "Leave the token to Jupyter, or start jupyter lab yourself"
        )
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # another name, or * for all
        return False


class ClosedServer(ServerApp):
    """A server that refuses to start if others could use it."""

    def start(self) -> None:
        """Serve, or say why not and end with exit code 1."""
        reason = open_to_others(self)
        if reason:
            sys.exit(f"fpkit: error: {reason}")
        super().start()


class Lab(LabApp):
    """JupyterLab on such a server."""

    serverapp_class = ClosedServer

    @classmethod
    def get_extension_package(cls) -> str:
        """Of the extension that this is to Jupyter."""
        return "jupyterlab"


if __name__ == "__main__":
    Lab.launch_instance()

"""Python runs this first where this folder is on PYTHONPATH: whoever asks a network is refused.

Every attempt is one line of the file that FPKIT_OFFLINE_LOG names, so that one is found also where
its error is caught. With FPKIT_OFFLINE_LOOPBACK set, a process may talk to its own machine. Sees
what goes through Python's own modules; code in C is stopped by a namespace without a network.
"""

import os
import sys

LOG = os.environ["FPKIT_OFFLINE_LOG"]
LOOPBACK = "FPKIT_OFFLINE_LOOPBACK" in os.environ
OWN = ("127.0.0.1", "::1", "localhost")
PLACES = {  # where the address is among an event's arguments
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.getnameinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
    "urllib.Request": 0,
    "http.client.connect": 1,
    "ftplib.connect": 1,
    "smtplib.connect": 1,
}


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook that lets no address of another machine pass."""
    place = PLACES.get(event)
    if place is None:
        return
    address = arguments[place]
    host = address[0] if isinstance(address, tuple) and address else address
    if isinstance(host, bytes):
        host = host.decode("utf-8", "replace")
    if host is None or isinstance(host, int):  # to listen; to the kernel of the machine
        return
    if event.startswith("socket.") and not isinstance(address, tuple) and place == 1:
        return  # a path: a socket of the file system
    if event == "urllib.Request" and str(host).startswith(("file:", "data:")):
        return
    if LOOPBACK and (host in OWN or str(host).startswith(tuple(f"http://{own}" for own in OWN))):
        return
    with open(LOG, "a", encoding="utf-8") as log:
        log.write(f"{event} {address!r} by {' '.join(sys.argv)[:200]}\n")
    raise PermissionError(f"no network in this test: {event} {address!r}")


sys.addaudithook(refuse)

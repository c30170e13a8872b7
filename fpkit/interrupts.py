"""Ctrl-C, and the signal by which systems ask a process to end: both leave in good order.

SIGTERM is what `kill`, batch queues and containers send before they kill. It raises
KeyboardInterrupt as Ctrl-C does, with the number of the signal as its argument.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, unless the process was told to ignore it."""
    if not _may_handle() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def held_interrupts() -> Iterator[list[int]]:
    """Collect the signals instead of acting on them: for work that must not be torn apart."""
    held: list[int] = []
    if not _may_handle():
        yield held
        return
    # what ignores them (nohup and the like), or runs its own loop, is not changed
    mine = [s for s in SIGNALS if signal.getsignal(s) not in (signal.SIG_IGN, None)]
    previous = {s: signal.signal(s, lambda number, _: held.append(number)) for s in mine}
    try:
        yield held
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def interrupting_signal(error: KeyboardInterrupt) -> int:
    """The number of the signal behind it: an exit code is 128 more."""
    number = error.args[0] if error.args else signal.SIGINT
    return int(number) if isinstance(number, int) else int(signal.SIGINT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


def _may_handle() -> bool:
    """Only the main thread gets signals."""
    return threading.current_thread() is threading.main_thread()

"""How other threads wake the one that waits for sockets."""

from __future__ import annotations

import contextlib
import socket


class Wakeup:
    """`socket` is readable once somebody has rung, until it is answered."""

    def __init__(self) -> None:
        self.socket, self._far_end = socket.socketpair()
        self._far_end.setblocking(False)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # full: it is ringing already; closed: nobody hears it
            self._far_end.send(b"!")

    def answer(self) -> None:
        self.socket.recv(1 << 12)

    def close(self) -> None:
        self.socket.close()
        self._far_end.close()

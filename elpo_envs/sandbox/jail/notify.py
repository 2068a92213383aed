"""The supervisor's end of user notification: each fork inside the jail waits for an answer given here."""

from __future__ import annotations

import errno
import struct
import sys

if sys.platform != "win32":
    import fcntl

_RECEIVE = 0xC0502100
_SEND = 0xC0182101
_CONTINUE = 1

_NOTICE_BYTES = 80
_NOTICE_HEAD = struct.Struct("QI")
_ANSWER = struct.Struct("QqiI")


class ForkGrants:
    """Answers the forks that jailed processes ask for.

    Args:
        listener: the descriptor from `JailReport.listener`. It is the caller's to close; once it is closed
            everywhere, each fork in the jail fails with ENOSYS.
    """

    def __init__(self, listener: int) -> None:
        self._listener = listener

    def fileno(self) -> int:
        """The listener: readable when a process waits for an answer, hung up when no jailed process is left."""
        return self._listener

    def receive(self) -> tuple[int, int] | None:
        """The next fork that waits: its notification and the process that asks, numbered as this process sees it.

        Waits if none is there, so poll `fileno` first.

        Returns:
            None if the process died (or was interrupted) in the meantime.

        Raises:
            OSError: the listener is closed or no listener.
        """
        notice = bytearray(_NOTICE_BYTES)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, notice)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        notification, process = _NOTICE_HEAD.unpack_from(notice)
        return notification, process

    def allow(self, notification: int) -> bool:
        """Let that one fork happen.

        Returns:
            False if the process no longer waits for it: nothing was forked then.
        """
        return self._answer(_ANSWER.pack(notification, 0, 0, _CONTINUE))

    def deny(self, notification: int, error: int = errno.EPERM) -> bool:
        """Make that one fork fail with the given `errno` value.

        Returns:
            False if the process no longer waits for it.
        """
        return self._answer(_ANSWER.pack(notification, 0, -error, 0))

    def _answer(self, answer: bytes) -> bool:
        try:
            fcntl.ioctl(self._listener, _SEND, answer)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

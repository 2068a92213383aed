"""What host, supervisor and nodes agree on: descriptors, messages. Standard library only.

Control messages are single packets of JSON, with descriptors attached where noted:

- host to supervisor: `{"fork": child, "of": parent, "bounds": [cpu_s, memory_mb] or null}` with the child's end of
  its connection; `{"drop": [ids]}`; `{"status": id}`, answered by `{"ended": exit code or null, "why": text}`.
- supervisor to host, once: `{"ready": {...}}`, the report on the jail.
- supervisor to node: `{"fork": child, "scratch": path, "from": path or null, "wait": bool}` with the child's two
  connections; `{"go": true}` to a child that was told to wait.
- new child to supervisor: `{"hello": id}`; a node that could not fork says `{"failed": text}` there.
"""

from __future__ import annotations

import socket
from json import dumps, loads  # by name: code may replace them in their module
from typing import Any

TEMPLATE = 0  # the id of the node from which sessions are forked

# In every process of a session:
CONTROL = 3  # from and to the supervisor
REQUEST = 4  # from and to the host; closed once the process is frozen
SCRATCH = 5  # the process's scratch directory
OUTPUT = 6  # what reached the standard descriptors past `sys.stdout`
SPARE = 7  # kept from the code, so that there is one to work with when it has used up the others

OPEN_FILES = 64  # a process's descriptors are below this
MAX_PACKET = 1 << 16
SCRATCH_FULL = 93  # exit code of a process that has left more in its scratch directory than can be copied
READY = b"\x01"  # the first byte that a process sends to the host


def pack(message: dict[str, Any]) -> bytes:
    """A control message as one packet."""
    return dumps(message).encode()


def unpack(packet: bytes) -> dict[str, Any]:
    """The inverse of `pack`; raises ValueError for anything else, which a hostile process may send."""
    try:
        message = loads(packet)
    except (ValueError, RecursionError) as error:
        raise ValueError("not a control message") from error
    if not isinstance(message, dict):
        raise ValueError("not a control message")
    return message


def pair() -> tuple[socket.socket, socket.socket]:
    """A connection that keeps packets apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

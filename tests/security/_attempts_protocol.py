"""Attempts on those whom a session talks to: forged words to the host (4) and to the supervisor (3), and forks.

The second call of a session is one that the host expects another after, so a fork is ordered while it runs.
"""

from __future__ import annotations

from _attempt import Attempt, low

_FIRST = "1"


def _late(name: str, layer: str, *calls: str, **options: object) -> Attempt:
    """A raw attempt in the second call of its session."""
    made = low(name, layer, *calls, **options)
    return Attempt(**{**vars(made), "calls": (_FIRST, *made.calls)})


_REPLIES = (
    *(
        low(f"reply-{name}", "host", f"{code}\ntime.sleep(60)", kinds=kinds, wall_s=1.0, patient=kinds == ("timeout",))
        for name, code, kinds in (
            ("of-endless-length", "os.write(4, struct.pack('!I', 0xFFFFFFFF) + b'x' * 100)", ("error",)),
            ("too-long", "os.write(4, struct.pack('!I', (4 << 20) + 1))", ("error",)),
            ("of-no-length", "os.write(4, bytes(4))", ("error",)),
            ("that-is-no-json", "os.write(4, struct.pack('!I', 4) + b'\\xff\\xfe{[')", ("error",)),
            ("that-is-no-list", "os.write(4, struct.pack('!I', 2) + b'{}')", ("error",)),
            ("without-a-kind", "os.write(4, struct.pack('!I', 7) + b'[[\"a\"]]')", ("error",)),
            ("of-another-kind", "reply(4, 'x', 'sandbox_failure')", ("error",)),
            ("of-a-strange-kind", "reply(4, 'x', ['ok'])", ("error",)),
            ("whose-text-is-none", "reply(4, {'encode': 1}, 'ok')", ("error",)),
            (
                "of-half-characters",
                "d = b'[[\"\\\\ud800\", \"ok\"]]'\nos.write(4, struct.pack('!I', len(d)) + d)",
                ("error",),
            ),
            ("of-too-much-text", "reply(4, 'x' * 10 ** 5)", ("error",)),
            ("twice", 'd = b\'[["a", "ok"], ["b", "ok"]]\'\nos.write(4, struct.pack(\'!I\', len(d)) + d)', ("error",)),
            (
                "nested-without-end",
                "d = b'[' * (4 << 20)\nd = struct.pack('!I', len(d)) + d\nwhile d: d = d[os.write(4, d):]",
                ("error",),
            ),
            (
                "of-a-huge-number",
                "d = b'1' * (4 << 20)\nd = struct.pack('!I', len(d)) + d\nwhile d: d = d[os.write(4, d):]",
                ("error",),
            ),
            ("that-stops-halfway", "os.write(4, struct.pack('!I', 100) + b'[')", ("timeout",)),
            (
                "that-drips",
                "os.write(4, struct.pack('!I', 10 ** 6))\nwhile True: os.write(4, b' '); time.sleep(0.05)",
                ("timeout",),
            ),
            ("never", "os.close(4)", ("error",)),
            ("after-the-end-of-writing", "socket.socket(1, 1, 0, fileno=4).shutdown(1)", ("error",)),
            (
                "with-descriptors",
                "s = socket.socket(1, 1, 0, fileno=4)\n"
                "socket.send_fds(s, [struct.pack('!I', 13) + b'[[\"x\", \"ok\"]]'], [1] * 200)",
                ("ok",),
            ),
        )
    ),
    low("reply-forged-and-gone-on", "host", "reply()\nwhile True: pass", "1", wall_s=1.0, patient=True),
)

_CONTROL = (
    *(
        _late(f"control-{name}", "supervisor", code)
        for name, code in (
            ("noise", "tell(3, b'\\xff' * 1000)"),
            ("empty-packets", "for i in range(100): tell(3, b'')"),
            ("commands", "for i in range(100): tell(3, b'{\"drop\": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}')"),
            ("greetings", "for i in range(100): tell(3, b'{\"hello\": 1}')"),
            ("huge-packet", "tell(3, b'x' * 10 ** 6)"),
            (
                "flood",
                "s = control(); s.setblocking(False)\ntry:\n    while True: s.send(b'x' * 1000)\nexcept OSError: pass",
            ),
            (
                "flood-of-descriptors",
                "import array\ns = control(); s.setblocking(False)\ntry:\n"
                "    while True: s.sendmsg([b'x'], [(1, 1, array.array('i', [1] * 253))])\nexcept OSError: pass",
            ),
            ("itself-in-a-message", "socket.send_fds(control(), [b'x'], [3, 4])"),
            ("shut-down", "control().shutdown(2)"),
            ("closed", "os.close(3)"),
            ("replaced", "os.dup2(0, 3)"),
            (
                "forged-credentials",
                "control().sendmsg([b'{\"hello\": 1}'], [(1, 2, struct.pack('3i', os.getppid(), 0, 0))])",
            ),
        )
    ),
)

# What stands in for the child that the host ordered. `connection` is the child's to the supervisor.
_GREETINGS = tuple(
    _late(f"greeting-{name}", "supervisor", f"task, request, connection = order()\n{code}")
    for name, code in (
        ("by-its-parent", "tell(connection, json.dumps({'hello': task['fork']}).encode())"),
        ("of-another", "tell(connection, b'{\"hello\": 1}')"),
        ("empty", "tell(connection, b'')"),
        ("empty-object", "tell(connection, b'{}')"),
        ("noise", "tell(connection, b'\\xff\\x00')"),
        ("nested", "tell(connection, b'[' * 60000)"),
        ("list", "tell(connection, b'[1]')"),
        ("number", "tell(connection, b'{\"hello\": ' + b'9' * 5000 + b'}')"),
        ("huge-failure", "tell(connection, ('{\"failed\": \"' + '\\xe9' * 30000 + '\"}').encode())"),
        ("failure-that-is-no-text", "tell(connection, b'{\"failed\": ' + b'[' * 900 + b']' * 900 + b'}')"),
        ("closed", "os.close(connection); os.close(request)"),
        ("never", "held = task, request, connection"),
        ("with-descriptors", "socket.send_fds(socket.socket(1, 5, 0, fileno=connection), [b'{}'], [1] * 100)"),
    )
)

_FORKS = (
    _late(
        "fork-early",
        "fork_grants",
        """
task, request, connection = order()
first = clone()
if first == 0:
    time.sleep(0.3)
    os._exit(0)
os.close(connection)
second = clone()
if second == 0:
    os._exit(0)
if second > 0:
    print("ESCAPED: forked twice for one order")
""",
    ),
    _late(
        "fork-early-and-again-in-the-child",
        "fork_grants",
        """
task, request, connection = order()
made = clone()
if made == 0:
    if clone() >= 0:
        reply(4, "ESCAPED: the child forked without an order")
    os._exit(0)
os.close(connection)
time.sleep(0.3)
""",
    ),
    _late(
        "fork-early-and-both-go-on",
        "supervisor",
        """
task, request, connection = order()
reply()
if clone() == 0:
    tell(connection, json.dumps({"hello": task["fork"]}).encode())
    os.write(request, b"\\x01")
    os.read(request, 65536)
    reply(request, "the child")
while True: pass
""",
        "1",
        wall_s=1.0,
    ),
    _late(
        "fork-without-a-greeting-then-its-parent-is-to-be-killed",
        "supervisor",
        """
task, request, connection = order()
reply()
if clone() == 0:
    os.write(request, b"\\x01")
    os.dup2(connection, 3)
    os.read(request, 65536)
    held = control()
    held.settimeout(0.5)
    try:
        packet, (further, last), _, _ = socket.recv_fds(held, 65536, 2)
        tell(last, b"{}")
        reply(request, "the child")
    finally:
        os._exit(0)
os.close(connection)
time.sleep(60)
""",
        "1",
        wall_s=1.0,
    ),
    _late(
        "fork-that-dies-at-once",
        "supervisor",
        """
task, request, connection = order()
if clone() == 0:
    tell(connection, json.dumps({"hello": task["fork"]}).encode())
    os._exit(0)
time.sleep(0.2)
""",
    ),
    _late(
        "fork-whose-parent-dies-first",
        "supervisor",
        """
task, request, connection = order()
if clone() == 0:
    time.sleep(0.3)
    tell(connection, b"{}")
    time.sleep(0.5)
    os._exit(0)
os._exit(0)
""",
        wall_s=1.0,
    ),
    _late(
        "fork-that-takes-its-orders-elsewhere",
        "supervisor",
        """
task, request, connection = order()
if clone() == 0:
    os.dup2(connection, 3)
    tell(3, json.dumps({"hello": task["fork"]}).encode())
    os.chdir("/")
    os.write(request, b"\\x01")
    os.read(request, 65536)
    reply(request, "\\x00" * 100)
    time.sleep(60)
""",
        "1",
        wall_s=1.0,
    ),
)

PROTOCOL_ATTEMPTS: tuple[Attempt, ...] = (*_REPLIES, *_CONTROL, *_GREETINGS, *_FORKS)

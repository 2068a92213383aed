"""A server that speaks just enough of the protocol by hand, and so starts at once: `python _mcp_plain_server.py HOW`.

HOW is "notes", for tools that work and keep a list of notes, or one of many ways to break the protocol.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HOW = sys.argv[1]
NAMES = ["note", "process", "crash", "silent", "hang"] if HOW == "notes" else ["act"]
ELSEWHERE = {"type": "object", "properties": {"x": {"$ref": "http://localhost:1/schema.json"}}}
ANSWERS: dict[str, Any] = {
    "shape": {"result": {"content": "no list", "isError": False}},
    "nested": {"result": {"content": [{"type": "text"}]}},
    "empty": {"result": {}},
    "surrogate": {"result": {"content": [{"type": "text", "text": "\ud800"}]}},
    "internal": {"error": {"code": -32603, "message": "out of order"}},
    "refuse": {"error": {"code": -32602, "message": "act does not like x"}},
    "own": {"error": {"code": 17, "message": "not on Sundays"}},
}
notes: list[str] = []


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def reply(message: dict[str, Any], **fields: Any) -> None:
    write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **fields}))


def say(message: dict[str, Any], text: str) -> None:
    reply(message, result={"content": [{"type": "text", "text": text}]})


def call(message: dict[str, Any]) -> None:
    """Answer a call, or do not."""
    name, arguments = message["params"]["name"], message["params"].get("arguments") or {}
    if name == "note":
        notes.append(arguments["text"])
        say(message, ", ".join(notes))
    elif name == "process":
        say(message, str(os.getpid()))
    elif name == "crash":
        if Path(arguments["once"]).exists():
            say(message, "survived")
        else:
            Path(arguments["once"]).touch()
            os._exit(3)
    elif name == "hang":
        time.sleep(60)
    elif HOW in ANSWERS:
        reply(message, **ANSWERS[HOW])
    elif HOW == "garble":
        write('{"jsonrpc": "2.0", "result": {"content"')
    elif HOW == "noise":
        write("a line that was meant for a log")
        say(message, "heard")
    elif HOW == "end":
        sys.exit(1)


if HOW == "dead":
    sys.exit(7)
if HOW == "mute":
    time.sleep(60)
for line in sys.stdin:
    received = json.loads(line)
    method = received.get("method")
    if method == "initialize":
        version = received["params"]["protocolVersion"]
        about = {"name": "plain", "version": "0"}
        reply(received, result={"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about})
    elif method == "tools/list":
        schema = ELSEWHERE if HOW == "reference" else {"type": "object"}
        reply(received, result={"tools": [{"name": name, "inputSchema": schema} for name in NAMES]})
    elif method == "tools/call":
        call(received)
    elif "id" in received:
        reply(received, error={"code": -32601, "message": "no such method"})

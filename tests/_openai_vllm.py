"""vLLM's own server on loopback, where it is installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

STARTS_WITHIN_S = 240


def interpreter() -> str:
    """The Python that has vLLM: ELPO_VLLM names it or its environment; else this one, or that of `vllm` on the path."""
    named = os.environ.get("ELPO_VLLM")
    candidates = [Path(named), Path(named) / "bin" / "python"] if named else [Path(sys.executable)]
    if not named and (command := shutil.which("vllm")):
        candidates.append(Path(command).parent / "python")
    for candidate in candidates:
        if candidate.is_file() and has_vllm(str(candidate)):
            return str(candidate)
    where = f"ELPO_VLLM={named}" if named else "this Python, nor behind a vllm on the path (ELPO_VLLM can name another)"
    pytest.skip(f"vLLM is not installed in {where}")


def has_vllm(python: str) -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    return subprocess.run([python, "-c", code], check=False, capture_output=True).returncode == 0


@contextmanager
def vllm_server(folder: Path, name: str, log: Path, *options: str) -> Iterator[str]:
    """The base URL of a server of the model in `folder`; it is ended afterwards, with all its processes."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [
        *(interpreter(), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
        *("--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", str(1 << 28), "--block-size", "32"),
        # On a CPU, a seeded request whose prompt is computed in pieces ends vLLM 0.32's engine.
        *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "4096"),
        *options,
    ]
    settings: dict[str, str] = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=settings, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"vLLM's server did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield f"{url}/v1"
    finally:
        _end(process)


def _healthy(url: str) -> bool:
    opener: Any = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server's whole session: it starts workers of its own."""
    for number, patience_s in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue

"""The `pyodide` backend: Python in WebAssembly, in Node.js."""

from __future__ import annotations

from elpo_envs.sandbox.pyodide.sandbox import PyodideSandbox

__all__ = ["PyodideSandbox"]

"""Ctrl-C: held back where something must be whole, and at every moment of a coroutine's run without a mess."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time

import pytest

from elpo_agent.interrupts import run_coroutine, uninterrupted


def test_interrupts_wait_for_the_end_of_a_block() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("the rest of the block")
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_within_a_block() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_who_ignores_interrupts_is_not_interrupted() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:

        async def main() -> str:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(0)
            return "done"

        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
        assert run_coroutine(main) == "done"
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_coroutine_gives_its_result() -> None:
    async def main() -> int:
        await asyncio.sleep(0)
        return 7

    assert run_coroutine(main) == 7
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_coroutine_is_cancelled_and_can_put_things_right() -> None:
    seen = []

    async def main() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            seen.append("put right")

    with pytest.raises(KeyboardInterrupt):
        run_coroutine(main)
    assert seen == ["put right"]


def test_the_second_interrupt_does_not_wait() -> None:
    async def main() -> None:
        for _ in range(2):
            try:
                signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                continue

    with pytest.raises(KeyboardInterrupt):
        run_coroutine(main)


_LOOPS = """
import asyncio, sys
from elpo_agent.interrupts import run_coroutine

async def main():
    await asyncio.sleep(0)

print("begun", flush=True)
try:
    while True:
        run_coroutine(main)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_an_interrupt_at_any_moment_leaves_no_complaint() -> None:
    """Nearly all the time goes to the making and closing of event loops, which is what must not be torn apart."""
    for delay in range(6):
        process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-c", _LOOPS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.02 + 0.0013 * delay)
            process.send_signal(signal.SIGINT)
            out, complaints = process.communicate(timeout=60)
        finally:
            process.kill()
        assert (out, complaints) == ("interrupted\n", "")

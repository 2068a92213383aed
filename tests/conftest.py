"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Tests run side by side; more threads than cores slow torch down by a factor of ten.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets named by ELPO_DATA; tests that need it are skipped where it is not set."""
    folder = os.environ.get("ELPO_DATA")
    if not folder:
        pytest.skip("ELPO_DATA is not set: it names the folder with the real data sets (gsm8k_test.jsonl.gz, ...)")
    return Path(folder)

"""Loading a causal language model and its tokenizer from a folder or a hub id."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def load_model(path_or_hub_id: str | Path, dtype: str = "float32", device: str = "auto") -> tuple[Any, Any]:
    """A model in eval mode and its tokenizer, ready for `TransformersPolicy` and `ChatCodec`.

    Args:
        path_or_hub_id: a local folder (never touches the network) or a hub id such as "Qwen/Qwen3-0.6B".
        dtype: "float32", "bfloat16" or "float16".
        device: "auto" (CUDA when there is one, else CPU), "cpu", "cuda", "cuda:1", ...
    Returns:
        (model, tokenizer), a `PreTrainedModel` and a `PreTrainedTokenizerBase`.
    Raises:
        ImportError: transformers or torch is not installed.
        FileNotFoundError: the folder does not exist or holds no model.
        ValueError: unknown dtype, or a tokenizer without a chat template.
    """
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"loading a model needs {package}; install the extra: pip install 'elpo[train]'")
    import torch
    from transformers import AutoModelForCausalLM

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in dtypes:
        raise ValueError(f"dtype={dtype!r} is not one of {', '.join(dtypes)}")
    source, local = _resolve(path_or_hub_id)
    tokenizer = load_tokenizer(path_or_hub_id)
    with without_progress_bars(local):
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtypes[dtype], local_files_only=local)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), tokenizer


def load_tokenizer(path_or_hub_id: str | Path) -> Any:
    """The tokenizer of a model's folder or hub id, ready for `ChatCodec`.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: the folder does not exist or holds no model.
        ValueError: it has no chat template.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ImportError("loading a tokenizer needs transformers; install the extra: pip install 'elpo[train]'")
    from transformers import AutoTokenizer

    source, local = _resolve(path_or_hub_id)
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the tokenizer of {source!r} has no chat template; use an instruction-tuned model, or put a "
            "chat_template.jinja beside its tokenizer"
        )
    return tokenizer


@contextmanager
def without_progress_bars(quiet: bool = True) -> Iterator[None]:
    """Keep transformers from drawing bars about files (if `quiet`); its setting is put back afterwards."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _resolve(path_or_hub_id: str | Path) -> tuple[str, bool]:
    """What to pass to transformers, and whether it is a local folder."""
    path = Path(path_or_hub_id).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            found = [p.parent.name for p in sorted(path.glob("*/config.json"))]
            hint = f"; did you mean one of its folders {', '.join(found)}?" if found else ""
            raise FileNotFoundError(f"{str(path)!r} holds no config.json, so no model{hint}")
        return str(path), True
    text = str(path_or_hub_id)
    # A hub id is "name" or "owner/name"; anything else can only be a path.
    looks_like_path = (
        isinstance(path_or_hub_id, Path)
        or text.startswith((".", "/", "~"))
        or text.count("/") > 1
        or text.endswith("/")
        or path.exists()
        or (text.count("/") == 1 and path.parent.is_dir())
    )
    if not looks_like_path:
        return text, False
    if path.exists():
        raise FileNotFoundError(f"{text!r} is a file; give the folder that holds config.json and the weights")
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"did you mean {str(path.parent / close[0])!r}?" if close else "check the path, or give a hub id"
    raise FileNotFoundError(f"model folder {text!r} does not exist; {hint}")

"""Typed configuration from defaults, a YAML file (or a preset's name) and command-line overrides, in that order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentParser

T = TypeVar("T")

PRESETS = Path(__file__).parent.parent / "configs"


def preset_names() -> list[str]:
    """Names that `--config` accepts beside file paths."""
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def parse(
    kind: type[T],
    argv: Sequence[str],
    *,
    command: str,
    description: str,
    flags: dict[str, str],
    default_preset: str | None,
) -> tuple[T, dict[str, bool]]:
    """Build a `kind` (a dataclass) from the command line.

    Args:
        kind: the configuration's class; its fields become options, nested ones with dots.
        argv: arguments after the command's name.
        command: the command's name, for the help.
        description: the help's first paragraph.
        flags: extra on/off options beside the configuration, name -> help.
        default_preset: preset to use where `--config` is not given, or None for the class's own defaults.

    Raises:
        SystemExit: 2 after a message about what is wrong, 0 after `--help`.
    """
    parser = ArgumentParser(prog=f"elpo {command}", description=description)
    parser.add_argument("--config", action="config", help=f"YAML file, or a preset: {', '.join(preset_names())}")
    for flag, text in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    parser.add_class_arguments(kind, as_group=False)
    args = _with_presets(list(argv))
    if default_preset is not None and not any(a == "--config" or a.startswith("--config=") for a in args):
        args = ["--config", str(PRESETS / f"{default_preset}.yaml"), *args]
    values: dict[str, Any] = vars(parser.instantiate_classes(parser.parse_args(args)))
    values.pop("config", None)
    switched = {flag: bool(values.pop(flag)) for flag in flags}
    return kind(**values), switched


def _with_presets(args: list[str]) -> list[str]:
    """Replace a preset's name after `--config` by its file."""
    out = []
    for i, arg in enumerate(args):
        name = arg.removeprefix("--config=")
        if name != arg and name in preset_names() and not Path(name).exists():
            arg = f"--config={PRESETS / name}.yaml"
        elif i > 0 and args[i - 1] == "--config" and arg in preset_names() and not Path(arg).exists():
            arg = str(PRESETS / f"{arg}.yaml")
        out.append(arg)
    return out

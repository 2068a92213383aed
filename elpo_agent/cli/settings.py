"""Typed configuration from defaults, a YAML file (or a preset's name) and command-line overrides, in that order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentParser

T = TypeVar("T")

PRESETS = Path(__file__).parent.parent / "configs"


class _Parser(ArgumentParser):
    """Says what is wrong without repeating every option there is."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        message = re.sub(r'^Parser key "(.+?)":', r"--\1:", " ".join(message.split()))
        message = re.sub(r"Expected a <class '(\w+)'>\. Got value: (.*)", r"must be \1, not '\2'", message)
        self.exit(2, f"{self.prog}: {message} (all options: {self.prog} --help)\n")


def preset_names() -> list[str]:
    """Names that `--config` accepts beside file paths."""
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def parse(
    kind: type[T],
    argv: Sequence[str],
    *,
    program: str,
    description: str,
    flags: dict[str, str],
    default_preset: str | None,
) -> tuple[T, dict[str, bool]]:
    """Build a `kind` (a dataclass) from the command line.

    Args:
        kind: the configuration's class; its fields become options, nested ones with dots.
        argv: the options.
        program: what was typed before the options, for the help and for messages.
        description: the help's first paragraph.
        flags: extra on/off options beside the configuration, name -> help.
        default_preset: preset to use where `--config` is not given, or None where no preset fits: the class's own
            defaults count.

    Raises:
        SystemExit: 2 after a message about what is wrong, 0 after `--help`.
    """
    presets = ", ".join(preset_names()) if default_preset is not None else ""
    parser = _Parser(
        prog=program,
        usage=f"{program} [--config FILE] [--OPTION VALUE ...]",
        description=description,
    )
    parser.add_argument(
        "--config", action="config", metavar="FILE", help="YAML file" + (f", or a preset: {presets}" if presets else "")
    )
    for flag, text in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    parser.add_class_arguments(kind, as_group=False)
    args = _with_presets(list(argv)) if presets else list(argv)
    for i, arg in enumerate(args):
        if arg.startswith("--config"):
            _check_yaml(parser, arg.partition("=")[2] or "".join(args[i + 1 : i + 2]), presets)
    if default_preset is not None and not any(a == "--config" or a.startswith("--config=") for a in args):
        args = ["--config", str(PRESETS / f"{default_preset}.yaml"), *args]
    parsed = parser.parse_args(args)
    try:
        build = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name before jsonargparse 4.49
        values: dict[str, Any] = vars(build(parsed))
        values.pop("config", None)
        switched = {flag: bool(values.pop(flag)) for flag in flags}
        return kind(**values), switched
    except ValueError as error:  # from the dataclasses' own checks
        parser.error(str(error))


def _check_yaml(parser: _Parser, path: str, presets: str) -> None:
    """Say which file it is whose contents cannot be settings at all."""
    if not Path(path).is_file():
        parser.error(f"--config {path or 'FILE'}: there is no such file{f'; presets are {presets}' if presets else ''}")
    try:
        values = yaml.safe_load(Path(path).read_text())
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        parser.error(f"--config {path} is not valid YAML{line}: {error.problem}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        parser.error(f"--config {path} is not valid YAML: {error}")
    if not isinstance(values, dict):
        parser.error(f"--config {path} holds no settings; write lines such as 'updates: 10'")
    unknown = [key for key in values if not any(f"--{key}" in a.option_strings for a in parser._actions)]
    if unknown:
        parser.error(f"--config {path}: there is no setting {', '.join(map(repr, unknown))}")


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

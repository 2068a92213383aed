"""The `elpo` command: a thin dispatcher, so that `elpo --help` and `elpo envs` need none of the trainer's packages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "train a model with ELPO or another algorithm",
    "eval": "score a model (or expert replay) on an environment or a data file",
    "sft": "fine-tune on expert traces (cold start)",
    "envs": "list the environments and try one out",
    "grade": "grade recorded episodes again",
    "sandbox": "check how well this machine can confine the code that models write",
}

_USAGE = "usage: elpo COMMAND [options]\n\n" + "\n".join(f"  {name:8} {text}" for name, text in COMMANDS.items())
_EPILOG = "\n\nEach command explains itself: elpo COMMAND --help"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(_USAGE + _EPILOG)
        return 0 if args else 2
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        print(f"elpo: there is no command {name!r}; choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        try:
            module = importlib.import_module(f"elpo_agent.cli.{name}")
        except ImportError as error:
            package = (error.name or "elpo_agent").split(".")[0]
            if package in ("elpo_agent", "elpo_envs"):
                raise
            extra = "elpo" if name in ("envs", "grade", "sandbox") else "'elpo[train]'"
            print(
                f"elpo {name} needs the package {package!r}, which is not installed: pip install {extra}",
                file=sys.stderr,
            )
            return 1
        return int(module.run(rest))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

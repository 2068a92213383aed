"""Run by path, as another user: all attempts, or those named, in one configuration. Prints problems as JSON.

Usage: `_as_another_user.py OPTIONS`, JSON with `disabled` (layers to leave out), `attempts` (names; null for all)
and `packages` (a folder with the packages that are needed, besides the standard library).
"""

import json
import sys
import types
from pathlib import Path

options = json.loads(sys.argv[1])
sys.path[:0] = [str(Path(__file__).parent), options["packages"]]
# The package as it is below this name, without what its own `__init__` imports.
package = types.ModuleType("elpo_envs")
package.__path__ = [str(Path(options["packages"]) / "elpo_envs")]
sys.modules["elpo_envs"] = package

from _ground import ground  # noqa: E402
from _registry import ATTEMPTS, applicable  # noqa: E402

wanted, disabled = options["attempts"], options["disabled"]
chosen = [a for a in ATTEMPTS if applicable(a, disabled) and (wanted is None or a.name in wanted)]
problems = []
with ground(frozenset(disabled)) as field:
    for attempt in chosen:
        if not attempt.patient:
            problems += [f"{attempt.name}: {problem}" for problem in field.verdict(attempt)]
    problems += field.verdicts([attempt for attempt in chosen if attempt.patient])
    report = {"attempts": len(chosen), "problems": problems, "active": field.pool.jail.active}
print(json.dumps(report))

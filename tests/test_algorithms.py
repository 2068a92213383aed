"""Algorithms by name: defaults, options, and other distributions' entry points."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _scripted import Script, grow, lost, won

from elpo_agent.algorithms import Algorithm, load, names, options
from elpo_agent.credit import GroupRelativeCredit, HierarchicalCredit
from elpo_agent.objective import ClippedObjective, ErrorLocalizedClipping
from elpo_agent.rollout import BinaryErrorLocalization, IndependentSampling

ROOT = Path(__file__).resolve().parents[1]


def test_elpo_has_the_papers_defaults() -> None:
    algorithm = load("elpo")
    assert algorithm == Algorithm(
        name="elpo",
        strategy=BinaryErrorLocalization(
            n_total=16, b_max=3, x_min=1, x_max=3, beta=5.0, search="inclusive", entropy_window=None
        ),
        credit=HierarchicalCredit(lambda_tree=0.5, eps=1e-6, ddof=0),
        objective=ErrorLocalizedClipping(eps_low=0.2, eps_high=0.315, eps_elc=0.115, scope="critical"),
    )


def test_grpo_defaults() -> None:
    assert load("grpo") == Algorithm(
        name="grpo",
        strategy=IndependentSampling(16),
        credit=GroupRelativeCredit(ddof=1, eps=1e-6),
        objective=ClippedObjective(eps_low=0.2, eps_high=0.2),
    )


@pytest.mark.parametrize("name", ["elpo", "grpo"])
def test_every_option_reaches_its_part(name: str) -> None:
    """Changing any single option changes the algorithm, so none is accepted and dropped."""
    other = {"search": "printed", "rounding": "ceil", "elc_scope": "first_all_failed", "entropy_window": 4}
    for option, parameter in options(name).items():
        if option in other:
            value = other[option]
        elif option == "ddof":
            value = 1 - parameter.default
        elif isinstance(parameter.default, int):
            value = parameter.default + 1
            value = 2 if option == "x_min" else value
        else:
            value = parameter.default / 2
        changed = load(name, **{option: value})
        assert changed != load(name), option
        assert repr(value) in repr(changed), option


def test_built_in_names_come_first() -> None:
    assert names()[:2] == ("elpo", "grpo")


def test_unknown_names_and_options_list_the_known() -> None:
    with pytest.raises(ValueError, match="'ppo' is unknown; known are elpo, grpo"):
        load("ppo")
    with pytest.raises(ValueError, match=r"no option b_min; it accepts: n_total=16, b_max=3"):
        load("elpo", b_min=3)
    with pytest.raises(ValueError, match="n_total=0"):
        load("grpo", n_total=0)


def test_listing_and_building_algorithms_needs_no_torch() -> None:
    code = (
        "import sys; from elpo_agent.algorithms import load, names\n"
        "for n in ('elpo', 'grpo'): load(n)\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", ["elpo", "grpo"])
def test_an_algorithm_runs_from_rollouts_to_bounds(name: str) -> None:
    algorithm = load(name, n_total=12)
    expander, result = grow(
        algorithm.strategy,
        lambda tree, node, made: Script((0.5,) * (4 - tree.nodes[node].depth), won() if made % 4 else lost()),
    )
    tree = expander.tree
    credit = algorithm.credit.assign(tree)
    bounds = algorithm.objective.bounds(tree, result)
    assert len(tree.leaves) == 12
    assert credit.advantage.shape == bounds.low.shape == bounds.high.shape == (len(tree.nodes),)
    assert np.all(np.isfinite(credit.advantage))
    assert np.any(bounds.low > 0.2) == (name == "elpo")


# --- other distributions ------------------------------------------------------------------------------------

PLUGIN = """
from elpo_agent.algorithms import Algorithm, load

def half(*, size: int, eps: float = 0.1):
    base = load("grpo")
    from elpo_agent.objective import ClippedObjective
    from elpo_agent.rollout import IndependentSampling
    return Algorithm("half", IndependentSampling(size), base.credit, ClippedObjective(eps, eps))

def anything(**given):
    return load("grpo", **given)

def nothing():
    return None

number = 3
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Put a distribution with the given entry points on the path, as an installer would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "elpo_test_plugin.py").write_text(PLUGIN)
    (tmp_path / "elpo_test_broken.py").write_text("import no_such_module_at_all\n")
    monkeypatch.delitem(sys.modules, "elpo_test_plugin", raising=False)

    def write(distribution: str, **entries: str) -> None:
        folder = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {value}" for name, value in entries.items())
        (folder / "entry_points.txt").write_text(f"[elpo.algorithms]\n{lines}\n")

    return write


def test_another_distributions_algorithm_is_found_by_name(install) -> None:  # type: ignore[no-untyped-def]
    install("half-dist", half="elpo_test_plugin:half", anything="elpo_test_plugin:anything")
    assert {"half", "anything"} <= set(names())
    algorithm = load("half", size=5)
    assert algorithm.name == "half"
    assert algorithm.strategy == IndependentSampling(5)
    assert algorithm.objective == ClippedObjective(0.1, 0.1)
    assert list(options("half")) == ["size", "eps"]
    assert load("anything", n_total=3).strategy == IndependentSampling(3)
    with pytest.raises(ValueError, match="needs the option size"):
        load("half")
    with pytest.raises(ValueError, match=r"accepts: size \(required\), eps=0.1"):
        load("half", size=5, sice=6)


def test_a_broken_plugin_is_blamed_by_distribution(install) -> None:  # type: ignore[no-untyped-def]
    install(
        "broken-dist",
        cracked="elpo_test_broken:f",
        absent="elpo_test_plugin:absent",
        number="elpo_test_plugin:number",
        nothing="elpo_test_plugin:nothing",
    )
    with pytest.raises(ImportError, match=r"distribution 'broken-dist'.*no_such_module_at_all"):
        load("cracked")
    with pytest.raises(ImportError, match=r"distribution 'broken-dist'.*absent"):
        load("absent")
    with pytest.raises(TypeError, match=r"distribution 'broken-dist'.*not callable"):
        load("number")
    with pytest.raises(TypeError, match="returned a NoneType"):
        load("nothing")
    assert load("grpo").name == "grpo"  # the others still work


def test_a_plugin_cannot_replace_a_built_in_algorithm_unseen(install) -> None:  # type: ignore[no-untyped-def]
    install("greedy-dist", elpo="elpo_test_plugin:anything")
    with pytest.warns(RuntimeWarning, match="'greedy-dist' registers an algorithm 'elpo', which is built in"):
        assert load("elpo").name == "elpo"
    assert names().count("elpo") == 1


def test_one_name_from_two_distributions_is_refused(install) -> None:  # type: ignore[no-untyped-def]
    install("one-dist", same="elpo_test_plugin:anything")
    install("two-dist", same="elpo_test_plugin:half")
    with pytest.raises(ValueError, match=r"registered more than once.*-dist.*-dist"):
        load("same")


def test_our_own_metadata_is_no_conflict(install, recwarn: pytest.WarningsRecorder) -> None:  # type: ignore[no-untyped-def]
    install("elpo", elpo="elpo_agent.algorithms.elpo:elpo", grpo="elpo_agent.algorithms.grpo:grpo")
    assert load("elpo").name == "elpo"
    assert [str(w.message) for w in recwarn if issubclass(w.category, RuntimeWarning)] == []

"""Algorithms by name: defaults, options, and other distributions' entry points."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _scripted import Script, grow, lost, won

from elpo_agent.algorithms import Algorithm, load, names, options
from elpo_agent.algorithms.registry import BUILT_IN
from elpo_agent.credit import GroupRelativeCredit, HierarchicalCredit
from elpo_agent.credit.wrappers import WithoutVoidTurns
from elpo_agent.objective import ClippedObjective, ErrorLocalizedClipping
from elpo_agent.objective.options import LossOptions
from elpo_agent.rollout import BinaryErrorLocalization, IndependentSampling
from elpo_agent.rollout.early_stop import EarlyStop

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


OTHER: dict[str, object] = {
    "search": "printed",
    "rounding": "ceil",
    "elc_scope": "first_all_failed",
    "entropy_window": 4,
    "loss": {"entropy_coef": 0.03125},
    "recovery": (2.0, 3.0),
    "max_probes": 5,
    "x_min": 2,
    "estimate": "hard",
    "norm": "mean_std_norm",
    "keep": 2,
    "similarity": 0.75,
    "largest_group": 20,
}
# Where an option chooses a part, its value is not written in it.
IN_REPR: dict[str, str] = {"loss": "entropy_coef=0.03125", "estimate": "GroupRelativeCredit", "format_scores": "Format"}


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_every_option_reaches_its_part(name: str) -> None:
    """Changing any single option changes the algorithm, so none is accepted and dropped."""
    for option, parameter in options(name).items():
        default = parameter.default
        value: object
        if option in OTHER:
            value = OTHER[option]
        elif option == "ddof":
            value = 1 - default
        elif isinstance(default, bool):
            value = not default
        elif option == "tool_calls":
            value = 3 if default is None else (3, 1)
        elif isinstance(default, int):
            value = default + 1
        else:
            value = default / 2 or 0.125
        changed = load(name, **{option: value})
        assert changed != load(name), option
        assert IN_REPR.get(option, repr(value)) in repr(changed), option


def test_any_algorithm_takes_the_shared_parts() -> None:
    for name in BUILT_IN:
        plain = load(name)
        changed = load(
            name,
            turn_rewards={"error": -0.25},
            turn_advantages={"timeout": -0.75},
            drop_void_turns=True,
            early_stop=2,
            positive_weight=1.5,
            replay_weight=0.5,
        )
        assert changed.name == name
        assert isinstance(changed.strategy, EarlyStop)
        assert changed.strategy.after == 2
        assert changed.selection.hand_on
        assert changed.replay_weight == 0.5
        assert isinstance(changed.credit, WithoutVoidTurns)
        assert "TurnRewards(amounts={'error': -0.25})" in repr(changed.credit)
        assert "amounts={'timeout': -0.75}" in repr(changed.credit)
        assert "weight=1.5" in repr(changed.credit)
        assert changed.objective == plain.objective
    assert load("grpo", turn_rewards=None, positive_weight=1.0) == load("grpo")


def test_wrong_shared_options_are_named() -> None:
    with pytest.raises(ValueError, match="no kind 'eror'; known are empty, error"):
        load("grpo", turn_rewards={"eror": -0.1})
    with pytest.raises(ValueError, match=r"turn_rewards\['error'\]='much' is no finite number"):
        load("grpo", turn_rewards={"error": "much"})
    with pytest.raises(ValueError, match=r"turn_rewards=-0.1 is no mapping"):
        load("grpo", turn_rewards=-0.1)
    with pytest.raises(ValueError, match=r"turn_advantages=-0.1 is no mapping"):
        load("grpo", turn_advantages=-0.1)
    with pytest.raises(ValueError, match="turn_advantages has no kind 'eror'"):
        load("grpo", turn_advantages={"eror": -0.1})
    with pytest.raises(ValueError, match="replay_weight=-1"):
        load("grpo", replay_weight=-1)
    with pytest.raises(ValueError, match=r"positive_weight=0.0"):
        load("grpo", positive_weight=0.0)
    with pytest.raises(ValueError, match=r"no option drop; .*as every algorithm: .*drop_void_turns=False"):
        load("grpo", drop=True)


def test_the_loss_comes_as_a_mapping() -> None:
    given = {"aggregation": "token-mean", "dual_clip": 3}
    assert load("grpo", loss=given).objective.options == LossOptions(aggregation="token-mean", dual_clip=3)
    dapo = load("dapo", loss={"entropy_coef": 0.01}).objective.options
    assert dapo == LossOptions(aggregation="token-mean", dual_clip=10.0, entropy_coef=0.01)
    whole = LossOptions(kl_coef=0.5)
    assert load("dapo", loss=whole).objective.options == whole
    with pytest.raises(ValueError, match="loss has no option dualclip; it accepts: aggregation, length, dual_clip"):
        load("grpo", loss={"dualclip": 3})
    with pytest.raises(ValueError, match=r"dual_clip=0.5 must be"):
        load("grpo", loss={"dual_clip": 0.5})
    with pytest.raises(ValueError, match=r"loss=\{'dual_clip': 'three'\}"):
        load("grpo", loss={"dual_clip": "three"})
    with pytest.raises(ValueError, match="loss='token-mean' is no set of options"):
        load("grpo", loss="token-mean")


def test_every_algorithm_has_a_formula_test() -> None:
    text = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("test_formulas_*.py")))
    assert [name for name in BUILT_IN if f'"{name}"' not in text] == []


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
        "for n in names(): load(n)\n"
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

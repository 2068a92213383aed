"""Tools that a user adds, what the prompt says of tools, and the public hook of `TokenBudget`."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import third_party_tool
from _episodes import call, small
from gymnasium.wrappers import RecordEpisodeStatistics

import elpo_envs
from elpo_envs.math_env import MathEnv
from elpo_envs.protocols import PROTOCOLS
from elpo_envs.science_env import ScienceQAEnv
from elpo_envs.tools import base
from elpo_envs.tools.extra import make_extra_tools
from elpo_envs.wrappers import TokenBudget

PLACE = "third_party_tool:PrimeTool"
PRIME = '<tool_call>{"name": "next_prime", "arguments": {"n": %s}}</tool_call>'

# --- a third party's tool -------------------------------------------------------------------------------------------


def test_a_third_partys_tool_takes_20_lines() -> None:
    source = Path(third_party_tool.__file__).read_text()
    assert len(source.splitlines()) <= 20
    assert base.__doc__ is not None
    example = textwrap.dedent(base.__doc__.partition("\n\n    ")[2].join(("    ", "")))
    assert example.strip() == source.replace("  # noqa: RUF012", "").strip()


@pytest.mark.parametrize("given", [third_party_tool.PrimeTool, PLACE])
def test_a_third_partys_tool_works(given: Any) -> None:
    env = gym.make("elpo/Math-v0", extra_tools=[given])
    env.reset(seed=3)
    assert [t["function"]["name"] for t in env.get_wrapper_attr("tools")] == ["python", "next_prime"]
    texts = [env.step(PRIME % n)[0] for n in ("10", "0", "-1", '"ten"', "1e9")]
    assert texts[:2] == ["11", "2"]
    assert all("do not fit its schema" in text for text in texts[2:])
    other = gym.make("elpo/Math-v0", extra_tools=[given])
    elpo_envs.restore(other, elpo_envs.snapshot(env))
    assert other.step(PRIME % "13")[0] == "17"
    for made in (env, other, *elpo_envs.fork(other, 2)):
        made.close()


def test_a_tool_by_its_place_survives_json() -> None:
    env = gym.make("elpo/Math-v0", extra_tools=[PLACE], describe_tools=True)
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    again.reset(seed=3)
    assert again.step(PRIME % "10")[0] == "11"
    for made in (env, again):
        made.close()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("third_party_tool:PrimeTool", "must be a list"),
        ({"mcp": {}}, "must be a list"),
        (["third_party_tool:Prim"], "cannot be loaded as 'module:name'"),
        (["no_such_module_here:Tool"], "cannot be loaded as 'module:name'"),
        (["PrimeTool"], "cannot be loaded as 'module:name'"),
        ([3], "cannot be called"),
        ([{"mpc": {}}], "is unknown"),
        ([{"mcp": ["python"]}], "is unknown"),
    ],
)
def test_wrong_entries_are_refused(extra: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        make_extra_tools(extra, 6.0)
    assert "extra_tools" in str(raised.value)


def test_no_client_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, elpo_envs.math_env, elpo_envs.tools; sys.exit('mcp' in sys.modules or 'httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_calculators_time_limit_is_the_environments() -> None:
    env = ScienceQAEnv(tool_timeout_s=0.5)
    env.reset(seed=1)
    arguments = {"operation": "evaluate", "expression": "exp(exp(exp(11)))"}
    started = time.monotonic()
    info = env.step(f"<tool_call>{json.dumps({'name': 'calculator', 'arguments': arguments})}</tool_call>")[4]
    (record,) = info["tool_calls"]
    assert (record["kind"], "within 0.5 s" in record["text"]) == ("timeout", True)
    assert time.monotonic() - started < 60
    env.close()


# --- tools in the prompt --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("told", [None, True, False])
@pytest.mark.parametrize("prompt", ["Be brief.", "", None])
def test_the_prompt_describes_the_tools_where_nothing_else_does(
    protocol: str, told: bool | None, prompt: str | None
) -> None:
    plain = small(protocol="hermes", extra_tools=(third_party_tool.PrimeTool,))
    made = small(
        protocol=protocol, describe_tools=told, system_prompt=prompt, extra_tools=(third_party_tool.PrimeTool,)
    )
    described = made.protocol.describe(plain.tools)
    says = made.default_prompt if prompt is None else prompt
    expected = protocol in ("fences", "python_tags") if told is None else told
    _, info = made.reset(seed=1)
    messages = info["messages"]
    text = messages[0]["content"] if messages[0]["role"] == "system" else ""
    assert messages[-1] == {"role": "user", "content": "What is 2 + 3?"}
    assert text == ("\n\n".join(part for part in (says, described) if part) if expected else says)
    assert len(messages) == (2 if text else 1)
    # A template is given the tools, or the chat describes them: never both, never neither.
    assert made.tools == ([] if expected else plain.tools)
    assert made.contract["tools"] == plain.contract["tools"]
    for env in (plain, made):
        env.close()


@pytest.mark.parametrize(
    ("protocol", "turn"), [("fences", "```python\n6*7\n```"), ("python_tags", "<python>6*7</python>")]
)
def test_what_the_prompt_tells_is_what_works(protocol: str, turn: str) -> None:
    made = small(protocol=protocol)
    _, info = made.reset(seed=1)
    opening, closing = turn.split("6*7")
    told = info["messages"][0]["content"]
    assert opening.strip() in told and closing.strip() in told and "variables" in told
    assert made.step(turn)[0] == "42"
    snap = elpo_envs.snapshot(made)
    with pytest.raises(ValueError, match="its protocol is"):
        elpo_envs.restore(small(), snap)
    made.close()


def test_a_protocol_of_bare_code_says_that_it_calls_one_tool_only() -> None:
    texts = []
    for make in (MathEnv, ScienceQAEnv):
        made = make(protocol="fences")
        _, info = made.reset(seed=1)
        texts.append(info["messages"][0]["content"])
        made.close()
    assert ["No other tool can be called." in text for text in texts] == [False, True]


def test_describing_is_part_of_what_a_snapshot_must_fit() -> None:
    one, other = small(describe_tools=True), small()
    one.reset(seed=1)
    with pytest.raises(ValueError, match="its system_prompt is"):
        elpo_envs.restore(other, elpo_envs.snapshot(one))
    (branch,) = elpo_envs.fork(one, 1)
    assert branch.reset(seed=1)[1]["messages"] == one.reset(seed=1)[1]["messages"]
    for env in (one, other, branch):
        env.close()


def test_a_tokenizers_template_is_told_once() -> None:
    transformers = pytest.importorskip("transformers", reason="the chat templates need transformers (extra train)")
    from elpo_agent.chat import ChatCodec
    from elpo_agent.training.session import TINY_MODEL

    codec = ChatCodec(transformers.AutoTokenizer.from_pretrained(TINY_MODEL))
    lengths = {}
    for protocol in PROTOCOLS:
        made = small(protocol=protocol, system_prompt="")
        _, info = made.reset(seed=1)
        lengths[protocol] = len(codec.prompt_ids(info["messages"], made.tools))
        made.close()
    assert lengths["hermes"] == lengths["openai"] < lengths["fences"]


# --- a wrapper's own budget -----------------------------------------------------------------------------------------


def test_a_turn_can_be_refused_from_outside() -> None:
    made = small()
    made.reset(seed=1)
    with made.refusing_turns():
        observation, reward, terminated, truncated, info = made.step("\\boxed{5}")
    assert (observation, reward, terminated, truncated) == ("", 0.0, False, True)
    assert (info["error_kind"], info["answer"], info["valid"]) == ("char_budget", None, True)
    assert info["messages"][-1] == {"role": "assistant", "content": "\\boxed{5}"}
    made.reset(seed=1)
    assert made.step("\\boxed{5}")[1:3] == (1.0, True)
    made.close()


def test_refusing_ends_with_the_context_whatever_happens() -> None:
    made = small()
    made.reset(seed=1)
    with pytest.raises(TypeError, match="action must be a str"), made.refusing_turns():
        made.step(5)  # type: ignore[arg-type]
    assert made.step("\\boxed{5}")[1:3] == (1.0, True)
    made.close()


def test_a_token_budget_changes_nothing_of_the_environment() -> None:
    base_env = small()
    env = TokenBudget(RecordEpisodeStatistics(base_env), 3)
    budgets = base_env.budgets
    env.reset(seed=1)
    _, reward, terminated, truncated, info = env.step("This is a turn of far more than three tokens.")
    assert (reward, terminated, truncated, info["error_kind"]) == (0.0, False, True, "char_budget")
    assert info["episode"]["l"] == 1  # the wrapper inside saw the end
    assert base_env.budgets is budgets
    env.reset(seed=1)
    assert env.step("\\boxed{5}")[2] is True
    env.close()


def test_the_token_budget_uses_nothing_private_of_the_environment() -> None:
    tree = ast.parse(inspect.getsource(sys.modules[TokenBudget.__module__]))
    used = [(ast.unparse(n.value), n.attr) for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    assert ("self._base", "refusing_turns") in used
    assert not [name for owner, name in used if owner != "self" and name.startswith("_") and name != "__init__"]


def test_the_default_prompt_of_hermes_is_untouched() -> None:
    made = small()
    _, info = made.reset(seed=1)
    assert info["messages"] == [
        {"role": "system", "content": made.default_prompt},
        {"role": "user", "content": "What is 2 + 3?"},
    ]
    assert made.step(call("2 + 3"))[0] == "5"
    made.close()

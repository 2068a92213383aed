"""The token-exact engine: the conformance kit on a loopback server, and on vLLM's own where it is installed."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("httpx2")

from _command_line import command_line, said  # noqa: E402
from _engine_conformance import CHECKS, POSITIONS, STOP_IDS, VOCAB, Subject, random_model  # noqa: E402
from _openai_models import TokenServer  # noqa: E402
from _openai_server import Reply, Request, error, serving  # noqa: E402
from _openai_vllm import vllm_server  # noqa: E402
from _runs import EASY, records  # noqa: E402

from elpo_agent.config import ModelConfig  # noqa: E402
from elpo_agent.engines.openai.failures import EndpointError  # noqa: E402
from elpo_agent.engines.openai.policy import OpenAIPolicy  # noqa: E402
from elpo_agent.engines.openai.settings import EndpointConfig  # noqa: E402
from elpo_agent.engines.transformers_engine import TransformersPolicy  # noqa: E402
from elpo_agent.policy import SampleRequest  # noqa: E402
from elpo_agent.training.session import TINY_MODEL, Session  # noqa: E402

MANY = ("draws_follow_the_distribution",)  # hundreds of requests


def openai_policy(url: str, **settings: Any) -> OpenAIPolicy:
    return OpenAIPolicy(EndpointConfig(base_url=url, **settings), "random", stop_ids=STOP_IDS, vocab=VOCAB)


def threads() -> int:
    """Engines' threads that are alive."""
    return sum(t.name == "elpo-openai" for t in threading.enumerate())


@pytest.fixture(scope="module", params=["full", pytest.param("top_k", marks=pytest.mark.slow)])
def loopback(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Whole distributions before temperature, or the most probable tokens after it."""
    full, model = request.param == "full", random_model(tied=True)
    served = TransformersPolicy(model, stop_ids=STOP_IDS, pad_id=0)
    answer = TokenServer(served, model, POSITIONS, after_temperature=not full)
    with serving(answer) as server, openai_policy(server.url, top_logprobs=-1 if full else 5) as policy:
        assert policy.entropy_kind == request.param
        yield Subject(policy, model, STOP_IDS, VOCAB, None, POSITIONS)


@pytest.mark.parametrize("check", [pytest.param(c, marks=pytest.mark.slow) if c in MANY else c for c in CHECKS])
def test_conformance(loopback: Subject, check: str) -> None:
    CHECKS[check](loopback)


def test_top_k_entropies_are_those_of_k_tokens_and_a_rest() -> None:
    model = random_model(tied=True)
    served = TransformersPolicy(model, stop_ids=STOP_IDS, pad_id=0)
    request = SampleRequest((3, 9, 4, 12, 50, 60, 70), 2, 3, 6, 0.7)
    with (
        serving(TokenServer(served, model, POSITIONS, after_temperature=True)) as server,
        openai_policy(server.url, top_logprobs=5) as policy,
    ):
        assert policy.entropy_kind == "top_k"
        (row,) = policy.sample([request])
    for turn in row:
        with torch.no_grad():
            logits = model(torch.tensor([request.prefix_ids + turn.ids])).logits[0, 6:-1].double()
        p = torch.softmax(logits / 0.7, -1).sort(descending=True).values[:, :5]
        p = torch.cat((p, 1 - p.sum(1, keepdim=True)), 1).numpy()
        np.testing.assert_allclose(turn.entropies, -(p * np.log(p)).sum(1), atol=1e-4)


def test_weights_are_not_ours() -> None:
    with serving(lambda request: Reply({"data": []})) as server, openai_policy(server.url) as policy:
        assert not hasattr(policy, "load_weights") and not hasattr(policy, "weights_updated")


def answering(reply: Reply, models: Reply = error(404, "not here")) -> Any:  # noqa: B008
    return lambda request: models if request.method == "GET" else reply


GOOD = {
    "token_ids": [5, 17],
    "logprobs": {"token_logprobs": [-1.0, -2.0], "top_logprobs": [{"token_id:5": -1.0}, {"token_id:17": -2.0}]},
}
REQUEST = SampleRequest((3, 4), 1, 0, 4)


def test_a_server_that_tells_no_context_length() -> None:
    with serving(answering(Reply({"choices": [GOOD]}))) as server, openai_policy(server.url) as policy:
        ((turn,),) = policy.sample([REQUEST])
        assert policy.positions is None
        assert (turn.ids, turn.finish, turn.logprobs.tolist()) == ((5, 17), "stop", [-1.0, -2.0])
        body = server.bodies[0]
    assert (body["prompt"], body["max_tokens"], body["stop_token_ids"]) == ([3, 4], 4, list(STOP_IDS))
    assert (body["top_k"], body["repetition_penalty"], body["logprobs"]) == (0, 1.0, 20)


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"text": "hello", "logprobs": None},
        {**GOOD, "token_ids": None},
        {**GOOD, "token_ids": []},
        {**GOOD, "token_ids": [5]},
        {**GOOD, "token_ids": [5, "x"]},
        {**GOOD, "logprobs": {"token_logprobs": [-1.0, -2.0], "top_logprobs": None}},
        {**GOOD, "logprobs": {"token_logprobs": [-1.0, -2.0], "top_logprobs": [{"a": -1.0}, {"b": -2.0}]}},
        {**GOOD, "logprobs": {"token_logprobs": [None, -2.0], "top_logprobs": [{}, {"token_id:17": -2.0}]}},
    ],
)
def test_a_server_without_token_ids(choice: Any) -> None:
    with (
        serving(answering(Reply({"choices": [choice]}))) as server,
        openai_policy(server.url) as policy,
        pytest.raises(EndpointError, match=r"gives no token ids .* leave endpoint\.tokenizer empty to use chat"),
    ):
        policy.sample([REQUEST])


def test_temperatures_whose_figures_cannot_be_had() -> None:
    model = random_model(tied=True)
    served = TransformersPolicy(model, stop_ids=STOP_IDS, pad_id=0)
    with (
        serving(TokenServer(served, model, POSITIONS, after_temperature=False)) as server,
        openai_policy(server.url) as policy,
    ):
        assert [len(row) for row in policy.sample([REQUEST, replace(REQUEST, temperature=0.0)])] == [1, 1]
        with pytest.raises(ValueError, match=r"temperature=0\.7, but .* serve with --logprobs-mode processed_logprobs"):
            policy.sample([replace(REQUEST, temperature=0.7)])


def test_a_model_that_is_not_served() -> None:
    with (
        serving(answering(Reply(), Reply({"data": [{"id": "a"}, {"id": "b"}]}))) as server,
        openai_policy(server.url) as policy,
        pytest.raises(ValueError, match="has no model 'random'; it serves a, b"),
    ):
        policy.sample([REQUEST])


def test_one_failure_ends_the_call_and_the_engine_lives_on() -> None:
    bad = threading.Event()

    def answer(request: Request) -> Reply:
        if request.method == "GET":
            return Reply({"data": []})
        if bad.is_set() and request.body["prompt"] == [9]:
            return error(400, "no")
        return Reply({"choices": [GOOD]}, delay_s=30.0 if bad.is_set() else 0.0)

    with serving(answer) as server, openai_policy(server.url) as policy:
        bad.set()
        with pytest.raises(EndpointError, match="HTTP 400: no"):
            policy.sample([REQUEST, replace(REQUEST, prefix_ids=(9,)), REQUEST])
        bad.clear()
        assert policy.sample([REQUEST])[0][0].ids == (5, 17)


def test_it_samples_within_a_running_loop_and_after_its_end_no_more() -> None:
    with serving(answering(Reply({"choices": [GOOD]}))) as server:
        before = threads()
        policy = openai_policy(server.url)

        async def within() -> Any:
            return policy.sample([replace(REQUEST, n=3)])

        assert [turn.ids for turn in asyncio.run(within())[0]] == [(5, 17)] * 3
        policy.close()
        policy.close()
        with pytest.raises(RuntimeError, match="this engine is closed"):
            policy.sample([REQUEST])
    assert threads() == before


def test_no_thread_is_left_where_opening_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    before = threads()
    with pytest.raises(ValueError, match="OPENAI_BASE_URL is not set"):
        openai_policy("")
    with pytest.raises(ValueError, match="stop_ids is empty"):
        OpenAIPolicy(EndpointConfig(base_url="http://h/v1"), "m", stop_ids=[])
    assert threads() == before


GREEDY = ["--tasks", "3", "--temperature", "0", "--env.kwargs", json.dumps(EASY)]


def greedy_evaluation(url: str, name: str, out: Path, *options: str) -> list[Any]:
    where = ["--engine", "openai", "--base-url", url, "--model", name, "--endpoint.tokenizer", "tiny"]
    assert command_line("eval", *where, *GREEDY, *options, "--output", str(out)) == 0
    return records(out)


def test_evaluating_token_by_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = Session.open(ModelConfig(device="cpu"))
    local = tmp_path / "local.jsonl"
    assert command_line("eval", "--model.path", "tiny", *GREEDY, "--output", str(local)) == 0
    with serving(TokenServer(session.policy, session.model, 4096, after_temperature=False)) as server:
        assert greedy_evaluation(server.url, "random", tmp_path / "remote.jsonl") == records(local)
        capsys.readouterr()
        options = ["--engine", "openai", "--base-url", server.url, "--model", "other", "--endpoint.tokenizer", "tiny"]
        assert command_line("eval", *options, "--tasks", "1") == 1
        assert "has no model 'other'; it serves random" in said(capsys)


# --- vLLM's own server ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit's model with a tokenizer, which the server needs to start."""
    folder = tmp_path_factory.mktemp("random")
    random_model(tied=True).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY_MODEL / name, folder)
    return folder


@pytest.fixture(scope="module", params=["full", "top_k"])
def vllm(request: pytest.FixtureRequest, random_folder: Path) -> Iterator[Subject]:
    """Whole distributions as vLLM gives them by default, or the most probable tokens after temperature."""
    full = request.param == "full"
    options = ["--max-logprobs", "-1"] if full else ["--logprobs-mode", "processed_logprobs"]
    log = random_folder / f"{request.param}.log"
    with (
        vllm_server(random_folder, "random", log, *options) as url,
        openai_policy(url, top_logprobs=-1 if full else 20) as policy,
    ):
        yield Subject(policy, random_model(tied=True), STOP_IDS, VOCAB, None, POSITIONS)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("check", CHECKS)
def test_conformance_of_vllms_server(vllm: Subject, check: str) -> None:
    CHECKS[check](vllm)


def with_calls(template: str) -> str:
    """The shipped template shows an assistant's content alone; a chat server must show its calls, too."""
    calls = (
        "{%- for call in message.tool_calls or [] %}"
        """{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' """
        "+ (call.function.arguments | tojson) + '}\\n</tool_call>' }}"
        "{%- endfor %}"
    )
    before, said, after = template.partition("' + message.content + '<|im_end|>")
    assert said
    return f"{before}' + (message.content or '') }}}}{calls}{{{{- '<|im_end|>{after}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_evaluating_through_vllms_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped model served by vLLM gives, greedily, what it gives in process: by ids, and by chat."""
    local = tmp_path / "local.jsonl"
    assert command_line("eval", "--model.path", "tiny", *GREEDY, "--output", str(local)) == 0
    here = records(local)
    template = tmp_path / "template.jinja"
    template.write_text(with_calls((TINY_MODEL / "chat_template.jinja").read_text()))
    options = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--chat-template", str(template)]
    with vllm_server(TINY_MODEL, "tiny", tmp_path / "log", *options) as url:
        assert greedy_evaluation(url, "tiny", tmp_path / "remote.jsonl") == here
        chat = tmp_path / "chat.jsonl"
        where = ["--engine", "openai", "--base-url", url, "--model", "tiny"]
        assert command_line("eval", *where, *GREEDY, "--output", str(chat)) == 0
        keys = ("task_id", "success", "answer", "tool_calls", "tool_errors", "turns")
        assert [[r[k] for k in keys] for r in records(chat)] == [[r[k] for k in keys] for r in here]

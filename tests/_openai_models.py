"""What loopback endpoints answer with: the data's experts, and the shipped model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from _openai_server import Body, Reply, Request, call, message

from elpo_agent.config import ModelConfig
from elpo_agent.engines.openai.chat import read_turn
from elpo_agent.policy import Policy, SampleRequest
from elpo_agent.training.session import Session
from elpo_envs.protocols import Hermes, ParsedCall
from elpo_envs.protocols.strict_json import write

_HERMES = Hermes()


def in_api_form(text: str) -> dict[str, Any]:
    """A Hermes turn as a server with a parser for calls sends it; broken calls stay text."""
    turn = _HERMES.parse(text)
    calls = [c for c in turn.calls if isinstance(c, ParsedCall)]
    if not calls or len(calls) < len(turn.calls):
        return message(text)
    own = [call(c.name, write(dict(c.arguments), "arguments"), f"call_{i}") for i, c in enumerate(calls)]
    return message(turn.content.removesuffix("\n") or None, own)


class Experts:
    """Plays the expert's turns of whichever task a conversation is about, as many as the conversation has come to.

    Args:
        env: an environment of the kind that is evaluated.
        indices: of the tasks.
        write_turn: how a turn goes into an answer; it is given the expert's raw turn.
    """

    def __init__(
        self, env: gym.Env[str, str], indices: Sequence[int], write_turn: Callable[[str], dict[str, Any]] = in_api_form
    ) -> None:
        self._turns: dict[str, list[str]] = {}
        self._write_turn = write_turn
        for index in indices:
            question, _ = env.reset(options={"index": index})
            base: Any = env.unwrapped
            self._turns[question] = base.expert_turns()

    def __call__(self, request: Request) -> Reply:
        chat = request.body["messages"]
        question = next(m["content"] for m in chat if m["role"] == "user")
        said = sum(m["role"] == "assistant" for m in chat)
        check_history(request.body)
        return Reply({**self._write_turn(self._turns[question][said]), "usage": {"completion_tokens": 7}})


def check_history(body: Body) -> None:
    """What strict servers insist on: every call is answered at once, by a result with its id."""
    waiting: list[str] = []
    for m in body["messages"]:
        if m["role"] == "tool":
            assert m["tool_call_id"] == waiting.pop(0)
            continue
        assert not waiting, "a call without its result"
        assert m["role"] in ("system", "user", "assistant") and set(m) <= {"role", "content", "tool_calls"}
        waiting = [c["id"] for c in m.get("tool_calls", ())]
        assert len(set(waiting)) == len(waiting)
        assert m["content"] is not None or waiting
    assert not waiting


class TinyChat:
    """The shipped model behind chat completions, greedy or not as the request asks."""

    def __init__(self) -> None:
        self._session = Session.open(ModelConfig(device="cpu"))

    def __call__(self, request: Request) -> Reply:
        body, codec = request.body, self._session.codec
        chat = []
        for m in body["messages"]:
            said = read_turn(m, _HERMES).text if m["role"] == "assistant" else m["content"]
            chat.append({"role": m["role"], "content": said})
        ids = codec.prompt_ids(chat, body.get("tools", ()))
        asked = SampleRequest(ids, 1, body["seed"], body["max_tokens"], body["temperature"])
        (turn,) = self._session.policy.sample([asked])[0]
        answer = in_api_form(codec.turn_text(turn.ids))
        return Reply({**answer, "usage": {"prompt_tokens": len(ids), "completion_tokens": len(turn.ids)}})


class TokenServer:
    """A policy behind /completions with token ids, as vLLM's server has it.

    Args:
        policy: samples.
        model: the module behind it, for the log-probabilities of other tokens.
        positions: of the model.
        after_temperature: log-probabilities are of the distribution that was drawn from.
    """

    def __init__(self, policy: Policy, model: Any, positions: int, after_temperature: bool) -> None:
        self._policy, self._model, self._positions = policy, model, positions
        self._after_temperature = after_temperature

    def __call__(self, request: Request) -> Reply:
        if request.path == "/v1/models":
            return Reply({"data": [{"id": "random", "max_model_len": self._positions}]})
        body = request.body
        for name in ("ignore_eos", "return_token_ids", "return_tokens_as_token_ids"):
            assert body[name] is True
        prefix = tuple(body["prompt"])
        assert 0 < body["max_tokens"] <= self._positions - len(prefix)
        asked = SampleRequest(prefix, 1, body["seed"], body["max_tokens"], body["temperature"])
        (turn,) = self._policy.sample([asked])[0]
        with torch.no_grad():
            logits = self._model(torch.tensor([prefix + turn.ids])).logits[0, len(prefix) - 1 : -1].double()
        divisor = body["temperature"] or 1.0 if self._after_temperature else 1.0
        logp = torch.log_softmax(logits / divisor, -1).numpy()
        top = []
        for row, token in zip(logp, turn.ids, strict=True):
            k = len(row) if body["logprobs"] == -1 else body["logprobs"]
            top.append({f"token_id:{i}": float(row[i]) for i in {token, *np.argsort(-row)[:k].tolist()}})
        own = [float(row[token]) for row, token in zip(logp, turn.ids, strict=True)]
        choice = {
            "token_ids": list(turn.ids),
            "logprobs": {"token_logprobs": own, "top_logprobs": top},
            "finish_reason": turn.finish,
        }
        used = {"prompt_tokens": len(prefix), "completion_tokens": len(turn.ids)}
        return Reply({"choices": [choice], "usage": used})

"""Chat completions as an environment's turns: messages and tools in, the raw text of an assistant turn out.

What this cannot give: token ids, exact log-probabilities and entropies. A chat endpoint applies a template and parses
calls behind a wall; the text here says the same as what the model wrote, and is not its tokens. So nothing can be
trained from it, and no tree be grown: it scores models, no more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elpo_agent.engines.openai.http import Endpoint, token_usage
from elpo_envs.protocols import OpenAI, TurnProtocol
from elpo_envs.protocols.strict_json import RefusedJSONError, read_value, skip_space

Message = Mapping[str, Any]

_CHARS_PER_TOKEN = 3  # for the rate of tokens before a server counted any
_TAG = "tool_call>"


@dataclass(frozen=True)
class ChatTurn:
    """One assistant turn.

    Attributes:
        text: the raw turn, as the environment's protocol reads it.
        native: the message with its calls, for the chat to go on from; None where there are none that any server
            takes back.
        n_calls: calls in `native`.
        prompt_tokens, tokens: as the server counts them; 0 where it does not.
    """

    text: str
    native: Message | None
    n_calls: int
    prompt_tokens: int = 0
    tokens: int = 0


class ChatModel:
    """A model behind `/chat/completions`.

    Args:
        endpoint: entered already.
        model: its name there.
        temperature: >= 0; 0 is greedy, as far as the server goes.
        max_tokens: longest turn.
        native: calls and results go in the API's own fields; False writes them as text.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, *, temperature: float, max_tokens: int, native: bool = True
    ) -> None:
        self._endpoint = endpoint
        self._model = model
        self._temperature = temperature
        self.max_tokens = max_tokens
        self.native = native

    async def turn(
        self, messages: Sequence[Message], tools: Sequence[Message], protocol: TurnProtocol, seed: Sequence[int]
    ) -> ChatTurn:
        """The next turn.

        Args:
            messages: in OpenAI's form.
            tools: OpenAI function schemas; the field is left out where there are none.
            protocol: how the environment reads turns.
            seed: numbers >= 0 that tell this turn from all others. Servers promise little about seeds.
        Raises:
            EndpointError: see `Endpoint.post`; an answer without a message is tried again, too.
        """
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [dict(m) for m in messages],
            "max_tokens": self.max_tokens,
            "temperature": self._temperature,
            # 31 bits: some servers take no more.
            "seed": int(np.random.SeedSequence(list(seed)).generate_state(1)[0]) >> 1,
        }
        if tools:
            body["tools"] = [dict(t) for t in tools]
        estimate = len(json.dumps(body)) // _CHARS_PER_TOKEN + self.max_tokens
        answer = await self._endpoint.post("/chat/completions", body, tokens=estimate, flaw=_flaw)
        message = _message(answer)
        assert message is not None
        return read_turn(message, protocol, *token_usage(answer))


def read_turn(message: Message, protocol: TurnProtocol, prompt_tokens: int = 0, tokens: int = 0) -> ChatTurn:
    """An API's assistant message as a turn. Never raises: what a model wrote is data.

    A call that no protocol could say (arguments that are no JSON, no name) becomes text that the environment answers
    with an error. Thoughts in fields of their own (`reasoning`, `reasoning_content`) are no part of a turn.
    """
    content = clean(_content(message))
    raw = message.get("tool_calls")
    calls = [_Call.of(call, number) for number, call in enumerate(raw if isinstance(raw, list) else (), 1)]
    if isinstance(protocol, OpenAI):
        text = _openai_text(content, calls)
    else:
        text = "\n".join([*([content] if content else []), *(call.hermes for call in calls)])
    native: Message | None = None
    if calls and all(call.sound for call in calls) and (isinstance(protocol, OpenAI) or _TAG not in content):
        native = {"role": "assistant", "content": content or None, "tool_calls": [call.api for call in calls]}
    return ChatTurn(text, native, len(calls), prompt_tokens, tokens)


def opened(
    messages: Sequence[Message], tools: Sequence[Message], protocol: TurnProtocol, *, native: bool
) -> tuple[list[Message], Sequence[Message]]:
    """How a chat begins: its messages, and the tools to send with them.

    Args:
        messages: the environment's first ones.
        tools: the environment's function schemas.
        protocol: how it reads turns.
        native: False puts the tools, and how to call them, into the system message, and sends none.
    """
    chat = [plain(m) for m in messages]
    if native or not tools:
        return chat, tools
    described = protocol.describe(tools)
    if chat and chat[0]["role"] == "system":
        return [{"role": "system", "content": f"{chat[0]['content']}\n\n{described}"}, *chat[1:]], ()
    return [{"role": "system", "content": described}, *chat], ()


def continued(turn: ChatTurn, new: Sequence[Message]) -> list[Message]:
    """The messages to put after a chat: the turn, and what the environment answered.

    Results stand beside their calls' ids where the calls can be handed back and each has its result. Otherwise the turn
    goes back as its text, and the results as a user's message: servers refuse histories with broken calls.

    Args:
        turn: what the assistant said.
        new: the environment's messages since, of the roles "tool" and "user".
    """
    results = [m for m in new if m["role"] == "tool"]
    if turn.native is not None and len(results) == turn.n_calls and list(new[: turn.n_calls]) == results:
        calls = turn.native["tool_calls"]
        answers = [
            {"role": "tool", "tool_call_id": call["id"], "content": clean(m["content"])}
            for call, m in zip(calls, results, strict=True)
        ]
        rest = [plain(m) for m in new[turn.n_calls :]]
        return [turn.native, *answers, *rest]
    told = [f"<tool_response>\n{m['content']}\n</tool_response>" if m["role"] == "tool" else m["content"] for m in new]
    return [
        {"role": "assistant", "content": turn.text},
        {"role": "user", "content": clean("\n".join(told))},
    ]


def plain(message: Message) -> Message:
    """A message of the environment's with its role and text alone."""
    return {"role": message["role"], "content": clean(message["content"])}


def clean(text: str) -> str:
    """The text with lone surrogates replaced, which no server takes."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@dataclass(frozen=True)
class _Call:
    """One of an API's calls.

    Attributes:
        api: as it can be sent back.
        hermes: as Hermes text.
        sound: a named function with a JSON object of arguments.
    """

    api: Message
    hermes: str
    sound: bool

    @staticmethod
    def of(call: Any, number: int) -> _Call:
        """`number` stands in where an API gives no id."""
        call = call if isinstance(call, dict) else {}
        identity, function = call.get("id"), call.get("function")
        function = function if isinstance(function, dict) else {}
        name, arguments = function.get("name"), function.get("arguments")
        if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
            arguments = "{}"  # of a call without arguments, some servers say nothing
        text = clean(arguments) if isinstance(arguments, str) else _dumped(arguments)
        known = isinstance(name, str) and bool(name)
        named = clean(name) if isinstance(name, str) else name
        value = _json(text)
        # Text that is no JSON is shown as it is, so that the error says where; but it must not close the block.
        body = json.dumps(text) if value is None and _TAG in text else text
        label = "" if "name" not in function else f'"name": {_dumped(named)}, '
        api = {
            "id": identity if isinstance(identity, str) and identity else f"call_{number}",
            "type": "function",
            "function": {"name": named, "arguments": text},
        }
        hermes = f'<tool_call>\n{{{label}"arguments": {body}}}\n</tool_call>'
        return _Call(api, hermes, known and isinstance(value, dict))


def _openai_text(content: str, calls: Sequence[_Call]) -> str:
    """The message as JSON, with calls numbered anew: their ids are the server's affair, not the model's."""
    numbered = [{**call.api, "id": f"call_{number}"} for number, call in enumerate(calls, 1)]
    message: dict[str, Any] = {"role": "assistant", "content": content}
    return json.dumps({**message, "tool_calls": numbered} if numbered else message, ensure_ascii=False)


def _dumped(value: Any) -> str:
    """A decoded value as JSON again; "null" for one nested too deeply."""
    try:
        return json.dumps(value)
    except RecursionError:
        return "null"


def _json(text: str) -> Any:
    """The one JSON value that the text is, or None."""
    try:
        value, end = read_value(text)
    except RefusedJSONError:
        return None
    return value if skip_space(text, end) == len(text) else None


def _message(answer: Message) -> Message | None:
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) else None


def _flaw(answer: Message) -> str | None:
    return "the answer holds no message" if _message(answer) is None else None


def _content(message: Message) -> str:
    """The text of a message: a string, parts of text, or a refusal."""
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    if not content:
        content = message.get("refusal")
    return content if isinstance(content, str) else ""

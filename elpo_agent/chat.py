"""Between chat messages and token ids, through the tokenizer's own chat template.

Sampled turns are never rendered again: what the model wrote stays exactly the ids it wrote. Only what
surrounds them (the prompt, the tool feedback, the frame of the next turn) comes from the template.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

Message = Mapping[str, Any]
ToolSchema = Mapping[str, Any]

# Content that no template changes, with nothing in it that one would look for.
_TURN = "Zq7TurnZq7"
_PROBE = "Zq7ProbeZq7"
_REMEMBERED = 4096  # texts that came after turns, whose ids are kept
_PROBE_TOOL: ToolSchema = {
    "type": "function",
    "function": {
        "name": _PROBE,
        "description": "probe",
        "parameters": {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}},
    },
}
_HERMES_TOOLS = """# Tools

You can call the functions whose signatures stand between <tools> and </tools>:
<tools>
{tools}
</tools>

To call one, write a JSON object with its name and arguments between <tool_call> and </tool_call>:
<tool_call>
{{"name": <function name>, "arguments": <arguments as a JSON object>}}
</tool_call>
Results come back between <tool_response> and </tool_response>."""


class ChatCodec:
    """Encodes prompts and feedback, decodes turns.

    Templates without tool support still work: the tools are described in the system message in the Hermes form,
    and results come as a user message with `<tool_response>` tags.

    Args:
        tokenizer: a `PreTrainedTokenizerBase` with a chat template.
        generation_config: the model's, whose `eos_token_id` also ends turns; None where there is none.

    Attributes:
        stop_ids: ids that end a turn, sorted.
        end_of_turn_id: the one that the template itself puts after an assistant turn.
        template_has_tools: False when the fallback is in use.

    Raises:
        ValueError: no chat template, or one that this codec cannot work with; the message says why.
    """

    def __init__(self, tokenizer: Any, generation_config: Any | None = None) -> None:
        if tokenizer.chat_template is None:
            raise ValueError("the tokenizer has no chat template; set tokenizer.chat_template")
        self._tokenizer = tokenizer
        self._usual_decode = _decodes_as_usual(tokenizer)
        self._special = _special_tokens(tokenizer)
        # Rollouts of one prompt mostly see the same results.
        self._feedback: dict[tuple[str, str], tuple[int, ...]] = {}
        self._tools: list[ToolSchema] = []  # those seen last, which mostly come again, and their text
        self._tools_text = "[]"
        self.end_of_turn_id = self._find_end_of_turn()
        stops = {self.end_of_turn_id, tokenizer.eos_token_id}
        eos = getattr(generation_config, "eos_token_id", None)
        stops.update(eos if isinstance(eos, list | tuple) else [eos])
        self.stop_ids: tuple[int, ...] = tuple(sorted(i for i in stops if i is not None))
        self._has_system = self._shows(_PROBE, [_system(_PROBE), _user("u")], None)
        in_user = self._shows(_PROBE, [_user("u")], [_PROBE_TOOL])
        in_system = self._shows(_PROBE, [_system("s"), _user("u")], [_PROBE_TOOL])
        results = self._shows(_PROBE, [_user("u"), _assistant(_TURN), {"role": "tool", "content": _PROBE}], None)
        self._tools_need_system = not in_user
        self.template_has_tools = (in_user or in_system) and results

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[ToolSchema] = ()) -> tuple[int, ...]:
        """The ids before the first assistant turn, the frame of that turn included.

        Args:
            messages: the chat so far, with "role" and "content".
            tools: OpenAI function schemas.
        Raises:
            ValueError: the template refuses these messages.
        """
        chat: list[Message] = [self._defused(m) for m in messages]
        if tools and not self.template_has_tools:
            described = _HERMES_TOOLS.format(tools="\n".join(json.dumps(t, ensure_ascii=False) for t in tools))
            chat = _with_system(chat, described)
            tools = ()
        elif tools and self._tools_need_system and not (chat and chat[0]["role"] == "system"):
            chat = [_system(""), *chat]
        if not self.template_has_tools:
            chat = _results_as_user(chat)
        if not self._has_system:
            chat = _system_into_user(chat)
        return self._encode(self._render(chat, tools))

    def feedback_ids(
        self, messages_new: Sequence[Message], tools: Sequence[ToolSchema] = (), *, closed: bool
    ) -> tuple[int, ...]:
        """What follows a sampled turn, up to and including the frame of the next one.

        Args:
            messages_new: tool results or user messages that came after the turn; at least one.
            tools: as in `prompt_ids`.
            closed: the sampled ids end with a stop token; if not, the template's is put first.
        Raises:
            ValueError: no messages, an assistant message among them, or the template refuses them.
        """
        if not messages_new or any(m["role"] == "assistant" for m in messages_new):
            roles = [m["role"] for m in messages_new]
            raise ValueError(f"messages_new has the roles {roles}; give at least one, none of the assistant")
        if list(tools) != self._tools:
            self._tools = copy.deepcopy(list(tools))
            self._tools_text = repr([dict(t) for t in tools])
        key = repr([dict(m) for m in messages_new]), self._tools_text
        ids = self._feedback.get(key)
        if ids is None:
            ids = self._feedback_ids(messages_new, tools)
            if len(self._feedback) == _REMEMBERED:
                del self._feedback[next(iter(self._feedback))]
            self._feedback[key] = ids
        return ids[1:] if closed else ids

    def _feedback_ids(self, messages_new: Sequence[Message], tools: Sequence[ToolSchema]) -> tuple[int, ...]:
        """The same, from the end-of-turn token on."""
        new = [self._defused(m) for m in messages_new]
        chat = [_user("u"), _assistant(_TURN), *(new if self.template_has_tools else _results_as_user(new))]
        tail = _after_marker(self._render(chat, tools if self.template_has_tools else ()))
        ids = self._encode(tail)
        if self.end_of_turn_id in ids:
            # From the end-of-turn token on: some templates put a space before it.
            ids = ids[ids.index(self.end_of_turn_id) :]
        else:
            ids = (self.end_of_turn_id, *ids)
        return ids

    def turn_ids(self, text: str) -> tuple[int, ...]:
        """The ids of an assistant turn as the model would write it, its end-of-turn token included."""
        return (*self._encode(text), self.end_of_turn_id)

    def turn_text(self, ids: Sequence[int]) -> str:
        """The text of a sampled turn: stop tokens at the end dropped, everything else kept as it is."""
        end = len(ids)
        while end and ids[end - 1] in self.stop_ids:
            end -= 1
        kept = list(ids[:end])
        if self._usual_decode:  # in half the time
            text = self._tokenizer.backend_tokenizer.decode(kept, skip_special_tokens=False)
        else:
            text = self._tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def _render(self, messages: Sequence[Message], tools: Sequence[ToolSchema], prompt: bool = True) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(m) for m in messages],
                tools=[dict(t) for t in tools] or None,
                add_generation_prompt=prompt,
                tokenize=False,
                enable_thinking=False,  # a variable of Qwen3-style templates; others ignore it
            )
        except TemplateError as error:
            roles = [m["role"] for m in messages]
            raise ValueError(f"the chat template refuses messages with the roles {roles}: {error}") from error
        assert isinstance(text, str)
        return text

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _shows(self, text: str, messages: Sequence[Message], tools: Sequence[ToolSchema] | None) -> bool:
        """Whether the template renders these messages, with `text` in the outcome."""
        try:
            return text in self._render(messages, tools or ())
        except (ValueError, TypeError):  # a template may trip over what it was not written for
            return False

    def _find_end_of_turn(self) -> int:
        """The first special token that the template puts after an assistant turn."""
        tail = self._encode(_after_marker(self._render([_user("u"), _assistant(_TURN)], (), prompt=False)))
        for token in tail:
            if token in self._special:
                return token
        if self._tokenizer.eos_token_id is None:
            raise ValueError(
                "the chat template ends assistant turns without a special token, and the tokenizer has no "
                "eos_token; set one, or no turn would ever end"
            )
        return int(self._tokenizer.eos_token_id)

    def _defused(self, message: Message) -> Message:
        """A tool's output may spell a special token: break it up, or it could forge the frame of a turn."""
        if message["role"] != "tool":
            return message
        content = message["content"]
        for token in self._special.values():
            if token in content:
                content = content.replace(token, f"{token[0]}\u200b{token[1:]}")
        return message if content is message["content"] else {**message, "content": content}


def _decodes_as_usual(tokenizer: Any) -> bool:
    """Whether `decode` is its backend's, with nothing added but a look at the type of every id."""
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    kind = type(tokenizer)
    usual = getattr(kind, "decode", None) is PreTrainedTokenizerBase.decode
    return usual and getattr(kind, "_decode", None) is PreTrainedTokenizerFast._decode


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    added = {i: t.content for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return {**added, **named}


def _after_marker(rendered: str) -> str:
    """The text after the dummy assistant turn."""
    before, found, after = rendered.rpartition(_TURN)
    if not found or _TURN in before:
        times = "never" if not found else "more than once"
        raise ValueError(
            f"the chat template shows an assistant turn {times}, so what follows it cannot be told apart; "
            "use a template that shows every message once"
        )
    return after


def _results_as_user(messages: Sequence[Message]) -> list[Message]:
    """Tool messages as user messages; neighbours are joined, since many templates insist on alternation."""
    out: list[Message] = []
    joinable = False
    for message in messages:
        is_result = message["role"] == "tool"
        content = message["content"]
        if is_result:
            content = f"<tool_response>\n{content}\n</tool_response>"
        if joinable and (is_result or message["role"] == "user"):
            out[-1] = _user(f"{out[-1]['content']}\n{content}")
        else:
            out.append(_user(content) if is_result else message)
        joinable = is_result or (joinable and message["role"] == "user")
    return out


def _with_system(messages: Sequence[Message], text: str) -> list[Message]:
    """The system message extended by `text`; made where there is none."""
    if messages and messages[0]["role"] == "system":
        return [_system(f"{messages[0]['content']}\n\n{text}"), *messages[1:]]
    return [_system(text), *messages]


def _system_into_user(messages: Sequence[Message]) -> list[Message]:
    """For templates without a system role: the system message opens the first user message."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return list(messages)
    return [_user(f"{messages[0]['content']}\n\n{messages[1]['content']}"), *messages[2:]]


def _message(role: str) -> Callable[[str], Message]:
    return lambda content: {"role": role, "content": content}


_system, _user, _assistant = _message("system"), _message("user"), _message("assistant")

"""The tiny model's tokenizer: byte-level BPE, one token per digit, Hermes tool tags as special tokens."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TURN = "<|im_end|>"
PAD = "<|endoftext|>"
SPECIAL = (
    PAD,
    "<|im_start|>",
    END_OF_TURN,
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)

# Any text can be encoded (byte fallback). The first alternatives keep the fixed parts of a tool call and of the
# chat format whole, so that a call costs a dozen tokens; digits stand alone, so that numbers are copied digit by
# digit.
PIECES = (
    r'\n\{"name": "python", "arguments": \{"code": "'
    r'|"\}\}\n'
    r"|\\n"
    r"|\\boxed\{"
    r"|(?:system|user|assistant)\n"
    r"| ?\d"
    r"| ?\p{L}+"
    r"| ?[^\s\p{L}\d\\\"{}]+"
    r"| ?[\\\"{}]"
    r"|\s"
)

CHAT_TEMPLATE = """
{%- for message in messages %}
{%- if message.role == 'system' %}
{{- '<|im_start|>system\n' + message.content }}
{%- if tools %}
{{- '\nTools:' }}
{%- for tool in tools %}
{{- ' ' + tool.function.name + '(' + (tool.function.parameters.properties | list | join(', ')) + ')' }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- elif message.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
{{- '<|im_start|>user\n' }}
{%- endif %}
{{- '<tool_response>' + message.content + '</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
""".strip()


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """A tokenizer whose merges come from `texts`; at most `vocab_size` tokens, at least 256 bytes + 7 special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(t, normalized=False, special=True) for t in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast

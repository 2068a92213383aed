"""Searching a corpus, and looking a passage up by its title."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from elpo_envs.tools.base import BaseTool, ToolResult
from elpo_envs.tools.corpus import Corpus, Document, fold_title

MAX_K = 10
MAX_QUERY_CHARS = 1_000
MAX_TITLE_CHARS = 300
_NEAR = 0.6
_COMPARED_TITLES = 2_000
_SUGGESTED = 3


class SearchTool(BaseTool):
    """`search(query, k)`: the `k` best passages by BM25, best first, as "[1] title" and the text below.

    Stateless; the index belongs to the corpus, which all environments of a process may share.

    Args:
        corpus: what is searched; by default the built-in science tables.
        max_chars: of each passage's text; longer ones are cut. >= 1.

    Raises:
        ValueError: `max_chars` is less than 1.
    """

    name = "search"

    def __init__(self, corpus: Corpus | None = None, max_chars: int = 1_000) -> None:
        if max_chars < 1:
            raise ValueError(f"max_chars={max_chars!r} must be at least 1")
        self._corpus = corpus if corpus is not None else Corpus.science()
        self._max_chars = max_chars
        self.description = (
            f"Search the {self._corpus.name} ({len(self._corpus):,} passages) by words. Returns the best passages with "
            "their titles."
        )
        self.parameters = {
            "type": "object",
            "properties": {
                "query": {
                    "type": "string",
                    "maxLength": MAX_QUERY_CHARS,
                    "description": "Words to look for, such as: density of copper.",
                },
                "k": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_K,
                    "default": 3,
                    "description": "How many passages; 3 by default.",
                },
            },
            "required": ["query"],
            "additionalProperties": False,
        }

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        query = str(arguments["query"])
        if not query.strip():
            return ToolResult("Error: the query is empty; give some words", "error")
        # JSON schema counts 3.0 as an integer.
        found = self._corpus.search(query, int(arguments.get("k", 3)))
        if not found:
            return ToolResult("No passage matches; try other words.", "empty")
        return ToolResult(
            "\n\n".join(
                f"[{place}] {document.title}\n{_cut(document.text, self._max_chars)}"
                for place, (document, _) in enumerate(found, start=1)
            )
        )


class LookupTool(BaseTool):
    """`lookup(title)`: the passage of that title, or the one with the nearest title.

    Case and spaces do not matter. A title is near that is at least 60% the same by `difflib`; where none is, the
    model is shown titles that share words with it.

    Args:
        corpus: where to look; by default the built-in science tables.
        max_chars: of the text; longer ones are cut. >= 1.

    Raises:
        ValueError: `max_chars` is less than 1.
    """

    name = "lookup"

    def __init__(self, corpus: Corpus | None = None, max_chars: int = 4_000) -> None:
        if max_chars < 1:
            raise ValueError(f"max_chars={max_chars!r} must be at least 1")
        self._corpus = corpus if corpus is not None else Corpus.science()
        self._max_chars = max_chars
        self.description = f"Read the passage of the {self._corpus.name} with the given (or the nearest) title."
        self.parameters = {
            "type": "object",
            "properties": {
                "title": {"type": "string", "maxLength": MAX_TITLE_CHARS, "description": "The passage's title."}
            },
            "required": ["title"],
            "additionalProperties": False,
        }

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        title = str(arguments["title"])
        if not title.strip():
            return ToolResult("Error: the title is empty", "error")
        same = self._corpus.titled(title)
        if same:
            return ToolResult(self._shown(same))
        alike = [document for document, _ in self._corpus.search(title, 100)]
        candidates: Sequence[Document] = alike
        if len(self._corpus) <= _COMPARED_TITLES:
            candidates = self._corpus.documents
        nearest = _nearest(title, candidates)
        if nearest is not None:
            shown = self._shown(self._corpus.titled(nearest.title))
            return ToolResult(f"No passage has exactly this title; the nearest is:\n{shown}")
        if not alike:
            return ToolResult("No passage has this title or one like it; try search.", "empty")
        titles = "; ".join(dict.fromkeys(document.title for document in alike[:_SUGGESTED]))
        return ToolResult(f"No passage has this title; passages about these words are: {titles}", "empty")

    def _shown(self, documents: Sequence[Document]) -> str:
        text = "\n\n".join(document.text for document in documents)
        return f"{documents[0].title}\n{_cut(text, self._max_chars)}"


def _nearest(title: str, candidates: Sequence[Document]) -> Document | None:
    """The first of those whose titles are the most alike; None where none is near."""
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(fold_title(title))
    best, best_ratio = None, _NEAR
    for document in candidates:
        matcher.set_seq1(fold_title(document.title))
        if matcher.real_quick_ratio() > best_ratio and matcher.quick_ratio() > best_ratio:
            ratio = matcher.ratio()
            if ratio > best_ratio:
                best, best_ratio = document, ratio
    return best


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most].rstrip()} ... (cut)"

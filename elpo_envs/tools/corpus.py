"""Documents to search, and their BM25 index."""

from __future__ import annotations

import functools
import gzip
import json
import re
import threading
import unicodedata
import weakref
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

MAX_TERMS = 64
_TEXT_FIELDS = ("text", "contents")
_ID_FIELDS = ("id", "_id", "docid")
_TITLE_WEIGHT = 2
_WORD = re.compile(r"\d+(?:\.\d+)+|\w+")
_STOP_WORDS = frozenset(
    """a about an and are as at be but by can do does for from give has have how if in into is it its many me much of
    on or such that the their then there these they this to was what when where which who why will with you""".split()  # noqa: SIM905
)


class CorpusError(ValueError):
    """A corpus cannot be used; the message names the file, the line, the field and the mend."""


@dataclass(frozen=True, slots=True)
class Document:
    """One passage.

    Attributes:
        doc_id: unique in its corpus.
        title: not blank; several documents may share one.
        text: what is shown.
    """

    doc_id: str
    title: str
    text: str


def terms(text: str) -> list[str]:
    """The words of `text` as they are indexed: compatibility forms unified, case folded, plurals cut.

    Plurals are cut by the rules of Harman, "How effective is suffixing?" (JASIS 42, 1991).
    """
    return [_singular(word) for word in _words(text)]


def fold_title(title: str) -> str:
    """A title as titles are compared: compatibility forms, case and spaces do not matter."""
    return " ".join(unicodedata.normalize("NFKC", title).casefold().split())


class Corpus:
    """An immutable set of documents with a BM25 index, built once, at the first search. Thread-safe.

    The score is BM25 in Lucene's form (k1 = 1.5, b = 0.75), with words of the title counted twice more. Copies and
    clones share the corpus; a pickled one carries its documents and is indexed anew.

    Args:
        documents: in the order that breaks ties.
        name: shown to the model, such as "science".

    Raises:
        CorpusError: there are no documents, or two have the same id.
    """

    def __init__(self, documents: Iterable[Document], name: str = "corpus") -> None:
        self.documents = tuple(documents)
        self.name = name
        if not self.documents:
            raise CorpusError(f"corpus {name!r} has no documents; give at least one")
        if len({document.doc_id for document in self.documents}) < len(self.documents):
            seen: set[str] = set()
            double = next(d.doc_id for d in self.documents if d.doc_id in seen or seen.add(d.doc_id))  # type: ignore[func-returns-value]
            raise CorpusError(f"corpus {name!r} has two documents with the id {double!r}; make ids unique or drop them")
        self._lock = threading.Lock()
        self._index: _Index | None = None
        self._by_title: dict[str, list[int]] | None = None

    @classmethod
    def from_jsonl(cls, path: str | Path, name: str | None = None) -> Corpus:
        """The documents of a .jsonl or .jsonl.gz file, one object a line with "title" and "text" (or "contents"),
        and an "id" where there is one, else the line's number.

        The same unchanged file gives the same object as long as someone holds it.

        Raises:
            FileNotFoundError: there is no such file.
            CorpusError: the file, a line or a field is unusable.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no corpus file {path}")
        status = path.stat()
        key = (str(path.resolve()), status.st_mtime_ns, status.st_size, name)
        with _FILES_LOCK:
            corpus = _FILES.get(key)
            if corpus is None:
                corpus = cls(_read_file(path), name if name is not None else path.name.split(".")[0])
                _FILES[key] = corpus
            return corpus

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str]], name: str = "corpus") -> Corpus:
        """Documents from (title, text), with their positions as ids. Raises CorpusError."""
        return cls((Document(str(at), title, text) for at, (title, text) in enumerate(pairs)), name)

    @staticmethod
    @functools.cache
    def science() -> Corpus:
        """The built-in tables: constants, elements, substances, formulas and units; one object per process."""
        from elpo_envs.tasks.science.tables import tables

        return Corpus.from_pairs(tables(), "science tables")

    def __len__(self) -> int:
        return len(self.documents)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.documents, self.name)

    def search(self, query: str, k: int) -> list[tuple[Document, float]]:
        """The at most `k` best documents with their scores > 0, best first; ties in document order.

        Words that stand in most questions count only where there are no others; of the rest, the first
        `MAX_TERMS` different ones count. Raises ValueError where `k` is less than 1.
        """
        if k < 1:
            raise ValueError(f"k={k!r} must be at least 1")
        words = _words(query)
        telling = [word for word in words if word not in _STOP_WORDS] or words
        wanted = dict.fromkeys(_singular(word) for word in telling)
        scores = self._indexed().scores(list(wanted)[:MAX_TERMS])
        if scores is None:
            return []
        matching = np.flatnonzero(scores > 0)
        if len(matching) > k:
            least = np.partition(scores[matching], -k)[-k]
            matching = matching[scores[matching] >= least]
        best = matching[np.argsort(-scores[matching], kind="stable")][:k]
        return [(self.documents[at], float(scores[at])) for at in best]

    def titled(self, title: str) -> list[Document]:
        """The documents of that title (case and spaces do not matter), in document order."""
        return [self.documents[at] for at in self._titles().get(fold_title(title), ())]

    def _indexed(self) -> _Index:
        with self._lock:
            if self._index is None:
                self._index = _Index(self.documents)
            return self._index

    def _titles(self) -> dict[str, list[int]]:
        with self._lock:
            if self._by_title is None:
                self._by_title = {}
                for at, document in enumerate(self.documents):
                    self._by_title.setdefault(fold_title(document.title), []).append(at)
            return self._by_title


_FILES: weakref.WeakValueDictionary[tuple[str, int, int, str | None], Corpus] = weakref.WeakValueDictionary()
_FILES_LOCK = threading.Lock()


class _Index:
    def __init__(self, documents: Sequence[Document]) -> None:
        import bm25s  # type: ignore[import-untyped]

        self._vocabulary: dict[str, int] = {}
        ids = [self._encode(document) for document in documents]
        if not self._vocabulary:
            return  # documents without a single word: nothing matches
        self._bm25 = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
        self._bm25.index((ids, self._vocabulary), create_empty_token=False, show_progress=False)

    def scores(self, words: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        """One score per document, or None where no document has any of the words."""
        known = [self._vocabulary[word] for word in words if word in self._vocabulary]
        if not known:
            return None
        found: np.ndarray[Any, np.dtype[np.float32]] = self._bm25.get_scores_from_ids(known)
        return found

    def _encode(self, document: Document) -> array[int]:
        words = terms(document.title) * _TITLE_WEIGHT + terms(document.text)
        return array("i", [self._vocabulary.setdefault(word, len(self._vocabulary)) for word in words])


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _singular(word: str) -> str:
    if len(word) > 3 and word.isalpha():
        if word.endswith("ies") and not word.endswith(("eies", "aies")):
            return f"{word[:-3]}y"
        if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
            return word[:-1]
        if word.endswith("s") and not word.endswith(("us", "ss")):
            return word[:-1]
    return word


def _read_file(path: Path) -> Iterator[Document]:
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise CorpusError(f"{path}: unknown file type; use .jsonl or .jsonl.gz")
    opener: Any = gzip.open if path.name.endswith(".gz") else Path.open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _document(line, number, f"{path}, line {number}")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorpusError(f"{path} is not a whole gzip file ({error}); write it again") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 near line {number + 1} ({error}); convert it") from error
    if number == 0:
        raise CorpusError(f"{path} has no lines; write one JSON object a line, with title and text")


def _document(line: str, number: int, place: str) -> Document:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise CorpusError(f"{place}: not valid JSON ({error}); mend or drop it") from error
    if not isinstance(row, dict):
        raise CorpusError(f"{place}: a {type(row).__name__}; each line must be a JSON object with title and text")
    field = next((name for name in _TEXT_FIELDS if name in row), "text")
    for name in ("title", field):
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            found = f"is {value!r:.80}" if name in row else f"is missing (fields found: {', '.join(row) or 'none'})"
            raise CorpusError(f"{place}: field {name!r} {found}; it must be non-empty text")
    own_id = next((row[name] for name in _ID_FIELDS if name in row), number)
    if isinstance(own_id, bool) or not isinstance(own_id, (str, int)):
        raise CorpusError(f"{place}: the id is {own_id!r:.80}; it must be text or a whole number")
    return Document(str(own_id), row["title"], row[field])

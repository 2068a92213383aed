"""The search and lookup tools: ranking, limits, corpora from files, sharing, and whole episodes."""

from __future__ import annotations

import copy
import gzip
import json
import os
import pickle
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from _episodes import small

import elpo_envs
from elpo_envs.tools.arguments import compile_check
from elpo_envs.tools.corpus import Corpus, CorpusError, Document, terms
from elpo_envs.tools.search import LookupTool, SearchTool

PAIRS = [
    ("Speed of light in vacuum", "c = 299792458 m/s, exact by definition of the metre."),
    ("Avogadro constant", "N_A = 6.02214076e23 1/mol, the number of particles in one mole."),
    ("Boltzmann constant", "k = 1.380649e-23 J/K links temperature and energy of particles."),
    ("Iron (Fe)", "Element 26. Molar mass 55.845 g/mol. Density 7874 kg/m^3."),
    ("Iodine (I)", "Element 53. Molar mass 126.904 g/mol. A violet halogen."),
    ("Copper (Cu)", "Element 29. Molar mass 63.546 g/mol. Density 8960 kg/m^3. A good conductor of electricity."),
    ("Water", "Density 997 kg/m^3 at 25 degC. Specific heat 4181 J/(kg K). Boils at 100 degC."),
    ("Ohm's law", "The voltage across a resistor is current times resistance: U = I R."),
    ("Ideal gas law", "p V = n R T for gases at low pressure."),
    ("Ångström", "1 Å = 1e-10 m. Длина связи, 結合の長さ."),
    ("Batteries", "A battery stores energy; its voltage falls as it empties."),
]
CORPUS = Corpus.from_pairs(PAIRS, "test tables")


def found(query: str, k: int = 3) -> list[str]:
    return [document.title for document, _ in CORPUS.search(query, k)]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("speed of light", "Speed of light in vacuum"),
        ("What is the density of copper?", "Copper (Cu)"),
        ("molar mass of iron", "Iron (Fe)"),
        ("IRON", "Iron (Fe)"),
        ("iodine halogens", "Iodine (I)"),
        ("I", "Iodine (I)"),
        ("specific heat of water", "Water"),
        ("ideal gases", "Ideal gas law"),
        ("battery voltage", "Batteries"),
        ("resistors", "Ohm's law"),
        ("how many particles in a mole", "Avogadro constant"),
        ("6.02214076e23", "Avogadro constant"),
        ("ångström", "Ångström"),
        ("A\u030angström", "Ångström"),
        ("длина", "Ångström"),
        ("\uff43\uff4f\uff50\uff50\uff45\uff52", "Copper (Cu)"),
    ],
)
def test_the_best_passage_comes_first(query: str, first: str) -> None:
    assert found(query, 1) == [first]


@pytest.mark.parametrize("query", ["xyzzy", "what is the xyzzy", "?!", "\ud800", "\U0001d54f", "'; --"])
def test_a_query_that_matches_nothing_says_so(query: str) -> None:
    result = SearchTool(CORPUS).call({"query": query})
    assert (result.text, result.kind) == ("No passage matches; try other words.", "empty")


def test_an_empty_query_is_an_error() -> None:
    assert SearchTool(CORPUS).call({"query": "  "}).kind == "error"
    assert LookupTool(CORPUS).call({"title": "  "}).kind == "error"


def test_the_text_shown() -> None:
    assert SearchTool(CORPUS).call({"query": "boltzmann", "k": 1}).text == (
        "[1] Boltzmann constant\nk = 1.380649e-23 J/K links temperature and energy of particles."
    )
    two = SearchTool(CORPUS, max_chars=10).call({"query": "constant", "k": 2}).text
    assert two.count("... (cut)") == 2 and two.startswith("[1] ") and "\n\n[2] " in two


def test_k_bounds_the_number_of_passages() -> None:
    for k in (1, 2, 3, 10):
        assert len(found("density molar mass element", k)) == min(k, 4)
    with pytest.raises(ValueError, match="k=0 must be at least 1"):
        CORPUS.search("iron", 0)


def test_ties_are_broken_by_document_order() -> None:
    corpus = Corpus.from_pairs([("same", "same words here")] * 50)
    assert [document.doc_id for document, _ in corpus.search("same", 10)] == [str(n) for n in range(10)]


def test_scores_fall() -> None:
    scores = [score for _, score in CORPUS.search("density of water at temperature in mole", 10)]
    assert len(scores) > 3 and scores == sorted(scores, reverse=True) and scores[-1] > 0


def test_long_queries_are_bounded() -> None:
    late = " ".join(f"w{n}" for n in range(64)) + " copper"
    assert CORPUS.search(late, 3) == []
    assert CORPUS.search("copper " * 100_000, 1)[0][0].title == "Copper (Cu)"


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ({"query": "iron"}, True),
        ({"query": "iron", "k": 10}, True),
        ({"query": "iron", "k": 11}, False),
        ({"query": "iron", "k": 0}, False),
        ({"query": "iron", "k": "3"}, False),
        ({"query": 5}, False),
        ({"k": 3}, False),
        ({"query": "x" * 1_001}, False),
        ({"query": "iron", "n": 3}, False),
    ],
)
def test_the_schema(arguments: dict[str, Any], fits: bool) -> None:
    check = compile_check("search", SearchTool(CORPUS).schema)
    assert (check(arguments) is None) is fits
    assert compile_check("lookup", LookupTool(CORPUS).schema)({"title": "Iron"}) is None


def test_terms() -> None:
    assert terms("Batteries, GASES, class 9.81 µm R2") == ["battery", "gase", "class", "9.81", "μm", "r2"]


def test_lookup() -> None:
    tool = LookupTool(CORPUS)
    assert tool.call({"title": " avogadro  CONSTANT "}).text.startswith("Avogadro constant\nN_A")
    near = tool.call({"title": "Avogadros constnt"})
    assert near.kind == "ok"
    assert near.text.startswith("No passage has exactly this title; the nearest is:\nAvogadro constant\nN_A")
    far = tool.call({"title": "the electricity that a conductor carries"})
    assert (far.kind, far.text) == (
        "empty",
        "No passage has this title; passages about these words are: Copper (Cu)",
    )
    assert tool.call({"title": "\ud800 qqq"}).kind == "empty"


def test_documents_of_one_title_are_shown_together() -> None:
    corpus = Corpus.from_pairs([("A", "first"), ("B", "other"), ("a", "second")])
    assert LookupTool(corpus).call({"title": "A"}).text == "A\nfirst\n\nsecond"


def test_a_corpus_of_a_file(tmp_path: Path) -> None:
    rows = [{"title": "One", "text": "uno"}, {"id": 7, "title": "Two", "contents": "due"}]
    text = "\n\n".join(json.dumps(row) for row in rows) + "\n"
    plain, packed = tmp_path / "numbers.jsonl", tmp_path / "numbers.jsonl.gz"
    plain.write_text("\ufeff" + text, encoding="utf-8")
    packed.write_bytes(gzip.compress(text.encode()))
    corpus = Corpus.from_jsonl(plain)
    assert corpus.documents == (Document("1", "One", "uno"), Document("7", "Two", "due"))
    assert corpus.name == "numbers" and Corpus.from_jsonl(packed).documents == corpus.documents
    assert Corpus.from_jsonl(plain) is corpus
    plain.write_text(json.dumps({"title": "New", "text": "nuovo"}), encoding="utf-8")
    assert len(Corpus.from_jsonl(plain)) == 1


GOOD = '{"title": "One", "text": "uno"}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", r"a\.jsonl has no lines; write one JSON object a line"),
        ("a.jsonl", b"\n \n", r"has no documents; give at least one"),
        ("a.jsonl", f"{GOOD}\n{{".encode(), r"a\.jsonl, line 2: not valid JSON .*; mend or drop it"),
        ("a.jsonl", b"[1]", r"line 1: a list; each line must be a JSON object with title and text"),
        ("a.jsonl", b'{"text": "x"}', r"line 1: field 'title' is missing \(fields found: text\); it must be non-empty"),
        ("a.jsonl", b'{"title": "x"}', r"line 1: field 'text' is missing \(fields found: title\)"),
        ("a.jsonl", b'{"title": "x", "text": 5}', r"line 1: field 'text' is 5; it must be non-empty text"),
        ("a.jsonl", b'{"title": "x", "contents": " "}', r"field 'contents' is ' '; it must be non-empty text"),
        ("a.jsonl", b'{"title": "", "text": "y"}', r"field 'title' is ''; it must be non-empty text"),
        ("a.jsonl", b'{"id": [1], "title": "x", "text": "y"}', r"the id is \[1\]; it must be text or a whole number"),
        ("a.jsonl", (GOOD[:-1] + ', "id": 2}\n' + GOOD).encode(), r"two documents with the id '2'; make ids unique"),
        ("a.jsonl", b'{"title": "\xff", "text": "y"}', r"is not UTF-8 near line 1 .*; convert it"),
        ("a.jsonl.gz", b"plain", r"is not a whole gzip file .*; write it again"),
        ("a.jsonl.gz", gzip.compress(GOOD.encode() * 50, mtime=0)[:-12], r"is not a whole gzip file"),
        ("a.txt", b"x", r"unknown file type; use \.jsonl or \.jsonl\.gz"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        Corpus.from_jsonl(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no corpus file .*none\.jsonl"):
        Corpus.from_jsonl(tmp_path / "none.jsonl")


def test_a_corpus_is_shared_by_copies_and_survives_a_pickle() -> None:
    assert copy.deepcopy({"corpus": CORPUS})["corpus"] is CORPUS and copy.copy(CORPUS) is CORPUS
    again = pickle.loads(pickle.dumps(CORPUS))
    assert again.documents == CORPUS.documents and again.search("copper", 1) == CORPUS.search("copper", 1)


def test_a_corpus_without_words() -> None:
    assert Corpus.from_pairs([("?", "!")]).search("copper", 1) == []


def test_many_threads_share_one_index() -> None:
    corpus = Corpus.from_pairs(PAIRS)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(corpus.search("copper density", 3))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and all(result == CORPUS.search("copper density", 3) for result in results)


def test_results_do_not_depend_on_the_process() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_tool_search import CORPUS\n"
        "for q in ('density mass of elements', 'energy particles constant', 'law'):\n"
        "    print([(d.doc_id, s) for d, s in CORPUS.search(q, 10)])\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_the_built_in_tables() -> None:
    corpus = Corpus.science()
    assert corpus is Corpus.science() and len(corpus) > 50
    for query in ("speed of light in vacuum", "molar mass of oxygen", "ideal gas law"):
        assert corpus.search(query, 1)
    assert "c" in SearchTool().call({"query": "speed of light", "k": 1}).text


def test_in_an_episode_with_snapshots() -> None:
    made = small(extra_tools=(partial(SearchTool, CORPUS), partial(LookupTool, CORPUS)))
    made.reset(seed=1)
    search = '<tool_call>{"name": "search", "arguments": {"query": "copper", "k": 1}}</tool_call>'
    lookup = '<tool_call>{"name": "lookup", "arguments": {"title": "water"}}</tool_call>'
    assert made.step(search)[0].startswith("[1] Copper (Cu)\n")
    frozen = elpo_envs.snapshot(made)
    first = made.step(lookup)
    other = made.clone()
    elpo_envs.restore(other, frozen)
    assert other.step(lookup) == first and first[0].startswith("Water\nDensity 997")
    obs, _, terminated, _, info = other.step("\\boxed{5}")
    assert terminated and info["is_correct"] and obs == ""
    assert made.step('<tool_call>{"name": "search", "arguments": {"query": "", "k": 99}}</tool_call>')[4][
        "error_kind"
    ] == ("invalid_arguments")
    made.close()
    other.close()

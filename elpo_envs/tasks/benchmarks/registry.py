"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from elpo_envs.tasks.benchmarks import livecodebench as lcb
from elpo_envs.tasks.benchmarks.base import Benchmark
from elpo_envs.tasks.benchmarks.choices import SHUFFLE_OPTION
from elpo_envs.tasks.benchmarks.gpqa import read_gpqa
from elpo_envs.tasks.benchmarks.hub import Hub
from elpo_envs.tasks.benchmarks.mathematics import HUB_SUBJECTS, read_contest, read_gsm8k, read_math
from elpo_envs.tasks.benchmarks.programs import MBPP_OPTIONS, read_humaneval, read_mbpp
from elpo_envs.tasks.benchmarks.scibench import read_scibench
from elpo_envs.tasks.benchmarks.science_choices import MMLU_HEADER, read_labelled, read_mmlu

_ARC_REVISION = "210d026faf9955653af8916fad021475a3f00453"
_MBPP_REVISION = "4bb6404fdc6cacfda99d4ac4205087b89d32030c"
_TEST = {"test": "test"}
_THREE = {"test": "test", "validation": "validation", "train": "train"}


def _gsm8k() -> Benchmark:
    return Benchmark(
        "gsm8k",
        "math",
        ("test", "train"),
        {split: (f"gsm8k_{split}.jsonl.gz", f"gsm8k_{split}.jsonl") for split in ("test", "train")},
        Hub("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866", {"test": "test", "train": "train"}, ("main",)),
        read_gsm8k,
        own_files={split: (f"{split}.jsonl", f"main/{split}-*.parquet") for split in ("test", "train")},
    )


def _math() -> Benchmark:
    return Benchmark(
        "math",
        "math",
        ("test", "train"),
        {
            split: (f"math_{split}.jsonl.gz", f"math_{split}.jsonl", f"MATH/{split}/*/*.json")
            for split in ("test", "train")
        },
        Hub(
            "EleutherAI/hendrycks_math",
            "21a5633873b6a120296cce3e2df9d5550074f4a3",
            {"test": "test", "train": "train"},
            HUB_SUBJECTS,
        ),
        read_math,
        own_files={
            split: (f"{split}/*/*.json", f"{split}.jsonl", f"*/{split}-*.parquet") for split in ("test", "train")
        },
    )


def _math500() -> Benchmark:
    return Benchmark(
        "math500",
        "math",
        ("test",),
        {"test": ("math500.jsonl.gz", "math500.jsonl", "MATH-500/test.jsonl")},
        Hub("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", _TEST),
        read_math,
        own_files={"test": ("test.jsonl",)},
    )


def _contest(name: str, files: tuple[str, ...], hub: Hub) -> Benchmark:
    return Benchmark(
        name,
        "math",
        ("test",),
        {"test": (f"{name}.jsonl.gz", f"{name}.jsonl", *files)},
        hub,
        read_contest,
        own_files={"test": ("test.jsonl", "train.jsonl", "*.parquet", "data/*.parquet")},
    )


def _arc(name: str, title: str) -> Benchmark:
    published = {"test": "Test", "validation": "Dev", "train": "Train"}
    return Benchmark(
        name,
        "science",
        ("test", "validation", "train"),
        {
            split: (
                f"{name}_{split}.jsonl.gz",
                f"{title}-{theirs}.jsonl",
                f"{title}/{title}-{theirs}.jsonl",
                f"ARC-V1-Feb2018-2/{title}/{title}-{theirs}.jsonl",
            )
            for split, theirs in published.items()
        },
        Hub("allenai/ai2_arc", _ARC_REVISION, _THREE, (title,)),
        read_labelled,
        own_files={split: (f"{title}/{split}-*.parquet", f"{split}-*.parquet") for split in published},
        options=SHUFFLE_OPTION,
    )


def _openbookqa() -> Benchmark:
    published = {"test": "test", "validation": "dev", "train": "train"}
    return Benchmark(
        "openbookqa",
        "science",
        ("test", "validation", "train"),
        {
            split: (f"openbookqa_{split}.jsonl.gz", f"OpenBookQA-V1-Sep2018/Data/Main/{theirs}.jsonl")
            for split, theirs in published.items()
        },
        Hub("allenai/openbookqa", "388097ea7776314e93a529163e0fea805b8a6454", _THREE, ("main",)),
        read_labelled,
        own_files={
            split: (f"{theirs}.jsonl", f"Data/Main/{theirs}.jsonl", f"main/{split}-*.parquet")
            for split, theirs in published.items()
        },
        options=SHUFFLE_OPTION,
    )


def _mmlu_stem() -> Benchmark:
    published = {"test": "test", "validation": "val", "dev": "dev"}
    return Benchmark(
        "mmlu_stem",
        "science",
        ("test", "validation", "dev"),
        {
            split: (
                f"mmlu_stem_{theirs}.jsonl.gz",
                f"mmlu/data/{theirs}/*_{theirs}.csv",
                f"mmlu/{theirs}/*_{theirs}.csv",
            )
            for split, theirs in published.items()
        },
        Hub(
            "cais/mmlu",
            "c30699e8356da336a370243923dbaf21066bb9fe",
            {"test": "test", "validation": "validation", "dev": "dev"},
            ("all",),
        ),
        read_mmlu,
        own_files={
            split: (
                f"{theirs}/*_{theirs}.csv",
                f"data/{theirs}/*_{theirs}.csv",
                f"*_{theirs}.csv",
                f"all/{split}-*.parquet",
            )
            for split, theirs in published.items()
        },
        options=SHUFFLE_OPTION,
        header=MMLU_HEADER,
    )


def _gpqa_diamond() -> Benchmark:
    names = ("gpqa_diamond.jsonl.gz", "gpqa_diamond.csv", "gpqa/dataset.zip", "gpqa/gpqa_diamond.csv")
    return Benchmark(
        "gpqa_diamond",
        "science",
        ("test",),
        {"test": names},
        Hub(
            "Idavidrein/gpqa",
            "633f5ee89ab8ad4522a9f850766b73f62147ffdd",
            {"test": "train"},
            ("gpqa_diamond",),
            gated=True,
        ),
        read_gpqa,
        own_files={"test": ("dataset.zip", "dataset/gpqa_diamond.csv")},
        options={"password": "of the published archive (by default the one its README gives)"},
    )


def _scibench() -> Benchmark:
    books = ("dataset/original/*.json", "original/*.json")
    return Benchmark(
        "scibench",
        "science",
        ("test", "train"),
        {split: ("scibench.jsonl.gz", *(f"scibench/{pattern}" for pattern in books)) for split in ("test", "train")},
        Hub("xw27/scibench", "main", {"test": "train", "train": "train"}),
        read_scibench,
        own_files=dict.fromkeys(("test", "train"), (*books, "*.json")),
    )


def _humaneval() -> Benchmark:
    return Benchmark(
        "humaneval",
        "code",
        ("test",),
        {"test": ("humaneval.jsonl.gz", "HumanEval.jsonl.gz", "HumanEval.jsonl")},
        Hub("openai/openai_humaneval", "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544", _TEST),
        read_humaneval,
        own_files={"test": ("data/HumanEval.jsonl.gz", "openai_humaneval/test-*.parquet", "test-*.parquet")},
    )


def _mbpp(name: str, files: tuple[str, ...], config: str) -> Benchmark:
    splits = ("test", "validation", "train", "prompt")
    return Benchmark(
        name,
        "code",
        splits,
        dict.fromkeys(splits, (f"{name}.jsonl.gz", *files)),
        Hub("google-research-datasets/mbpp", _MBPP_REVISION, {split: split for split in splits}, (config,)),
        read_mbpp,
        own_files={split: (f"{config}/{split}-*.parquet",) for split in splits},
        options=MBPP_OPTIONS,
    )


def _livecodebench() -> Benchmark:
    return Benchmark(
        lcb.NAME,
        "code",
        ("test",),
        {"test": (lcb.COMMON_FILE, *(f"code_generation_lite/{name}" for name in lcb.RELEASE_FILES))},
        Hub(
            "livecodebench/code_generation_lite",
            "0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
            _TEST,
            data_files=lcb.RELEASE_FILES,
        ),
        lcb.read_livecodebench,
        own_files={"test": lcb.RELEASE_FILES},
        options=lcb.OPTIONS,
        find=lcb.find_files,
        hub_files=lcb.files_of,
    )


_ALL = (
    _gsm8k(),
    _math(),
    _math500(),
    _contest(
        "aime24",
        ("aime_2024_problems.parquet", "AIME_2024/*.parquet"),
        Hub("HuggingFaceH4/aime_2024", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a", {"test": "train"}),
    ),
    _contest(
        "aime25",
        ("aime2025-I*.jsonl", "AIME2025/aime2025-I*.jsonl"),
        Hub("math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b", _TEST),
    ),
    _contest("amc23", (), Hub("math-ai/amc23", "80815d37005feb82cd7f8fbc6901d5d3eff43057", _TEST)),
    _gpqa_diamond(),
    _arc("arc_challenge", "ARC-Challenge"),
    _arc("arc_easy", "ARC-Easy"),
    _openbookqa(),
    _mmlu_stem(),
    _scibench(),
    _humaneval(),
    _mbpp("mbpp", ("mbpp.jsonl",), "full"),
    _mbpp("mbpp_sanitized", ("sanitized-mbpp.json",), "sanitized"),
    _livecodebench(),
)

BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType({benchmark.name: benchmark for benchmark in _ALL})

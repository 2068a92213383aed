"""Where an OpenAI-compatible endpoint is, and how hard it may be used."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

BASE_URL_VARIABLE = "OPENAI_BASE_URL"
API_KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True)
class EndpointConfig:
    """An OpenAI-compatible endpoint. The key, if it needs one, is read from OPENAI_API_KEY and from nowhere else.

    Attributes:
        base_url: up to the version, such as https://api.example.com/v1; "" takes OPENAI_BASE_URL.
        tokenizer: folder or hub id of the model's tokenizer, for servers that take and return token ids (vLLM's): turns
            are then sampled token by token through /completions, as in training. "" uses /chat/completions.
        top_logprobs: with a tokenizer, how many of the most probable tokens entropies are computed from, 2 or more; -1
            takes the whole vocabulary, which vLLM allows with --max-logprobs -1.
        tools: how a chat calls tools: "native" in the API's own fields; "text" in the environment's own format, which
            the system message teaches, for servers that know no tools or whose chat template leaves calls out.
        concurrency: requests under way at a time.
        requests_per_minute: at most so many are begun in any minute; 0 is no limit.
        tokens_per_minute: the same for prompt and generated tokens together, as far as they can be told beforehand.
        timeout_s: seconds for one request, from the connection to the last byte of the answer.
        retries: how often one request is tried again.
        retry_budget: how often requests are tried again in all.
        longest_wait_s: a server that asks for a longer pause than this is given up.
        extra: fields put into every request's body, e.g. {top_p: 0.95}; null takes a field out, e.g. {seed: null}.
    """

    base_url: str = ""
    tokenizer: str = ""
    top_logprobs: int = 20
    tools: str = "native"
    concurrency: int = 64
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    timeout_s: float = 300.0
    retries: int = 6
    retry_budget: int = 1000
    longest_wait_s: float = 120.0
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (
            ("concurrency", 1),
            ("requests_per_minute", 0),
            ("tokens_per_minute", 0),
            ("retries", 0),
            ("retry_budget", 0),
            ("longest_wait_s", 0),
        ):
            if not getattr(self, name) >= least:
                raise ValueError(f"endpoint.{name}={getattr(self, name)} must be at least {least}")
        if self.top_logprobs != -1 and self.top_logprobs < 2:
            raise ValueError(
                f"endpoint.top_logprobs={self.top_logprobs} gives no entropy; give 2 or more, or -1 for all tokens"
            )
        if self.tools not in ("native", "text"):
            raise ValueError(f"endpoint.tools={self.tools!r} is unknown; choose native or text")
        if not self.timeout_s > 0:
            raise ValueError(f"endpoint.timeout_s={self.timeout_s} must be more than 0 seconds")
        if self.base_url:
            check_url(self.base_url, "endpoint.base_url")


def resolved_url(config: EndpointConfig) -> str:
    """The base URL of `config` or of the environment, without a slash at its end.

    Raises:
        ValueError: neither names one, or it is none.
    """
    url = config.base_url or os.environ.get(BASE_URL_VARIABLE, "").strip()
    if not url:
        raise ValueError(
            f"endpoint.base_url is empty and {BASE_URL_VARIABLE} is not set; "
            "give the endpoint's URL, such as http://localhost:8000/v1"
        )
    check_url(url, "endpoint.base_url" if config.base_url else BASE_URL_VARIABLE)
    return url.rstrip("/")


def check_url(url: str, what: str) -> None:
    """Raise ValueError, naming `what`, unless `url` is an http(s) URL without credentials, query or fragment."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{what} holds a user name or password; take it out and put the key into {API_KEY_VARIABLE}")
    try:
        proper = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # the port is no number
        proper = False
    if not proper or parts.query or parts.fragment:
        raise ValueError(f"{what}={url!r} is no base URL; give one such as http://localhost:8000/v1")


def api_key() -> str | None:
    """The key in OPENAI_API_KEY, or None.

    Raises:
        ValueError: it cannot be sent in a header. The message does not repeat it.
    """
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not key:
        return None
    if not key.isascii() or not key.isprintable():
        raise ValueError(f"{API_KEY_VARIABLE} holds characters that no HTTP header can; set it anew")
    return key


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine by name or address, so that no proxy may stand between."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

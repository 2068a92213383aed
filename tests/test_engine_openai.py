"""Requests to OpenAI-compatible endpoints: limits, retries and failures, against a server on loopback."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx2")

from _openai_server import Answer, Reply, Request, Server, error, message, serving

from elpo_agent.config import EngineConfig
from elpo_agent.engines.openai.failures import (
    ContextOverflowError,
    EndpointError,
    answered_with,
    backoff_s,
    retry_after,
)
from elpo_agent.engines.openai.http import Endpoint
from elpo_agent.engines.openai.limits import RateBucket
from elpo_agent.engines.openai.settings import EndpointConfig, is_loopback, resolved_url

KEY = "sk-only-for-this-test-0123456789"
GOOD = Reply(message("hello"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower() in ("openai_api_key", "openai_base_url", "http_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name)


def ask(server: Server | str, n: int = 1, tokens: int = 0, **settings: Any) -> tuple[list[Any], Endpoint]:
    """`n` requests side by side: what each gave or raised, and the endpoint."""
    config = EndpointConfig(base_url=server if isinstance(server, str) else server.url, **settings)

    async def post() -> tuple[list[Any], Endpoint]:
        async with Endpoint(config) as endpoint:
            calls = [endpoint.post("/chat/completions", {"n": i}, tokens) for i in range(n)]
            return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 120), endpoint

    return asyncio.run(post())


def first(bad: Reply, times: int = 1) -> Answer:
    """Bad so many times, then good."""
    return lambda request: bad if request.number < times else GOOD


FAULTS = {
    "408": error(408, "too slow"),
    "409": error(409, "conflict"),
    "429": error(429, "slow down"),
    "500": error(500, "oops"),
    "503 in HTML": Reply(b"<html>busy</html>", 503),
    "slow": Reply(GOOD.body, delay_s=60),
    "truncated JSON": Reply(b'{"choices": [{"message": {"role": "assi'),
    "no JSON": Reply(b"<html>welcome to the captive portal</html>"),
    "a JSON list": Reply([]),
    "nested too deeply": Reply(b"[" * 100_000),
    "broken before the answer": Reply(GOOD.body, cut=-1),
    "broken in the answer": Reply(GOOD.body, cut=9),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_tried_again(fault: str) -> None:
    with serving(first(FAULTS[fault])) as server:
        (answer,), endpoint = ask(server, timeout_s=0.7)
    assert answer == GOOD.body
    assert (len(server.requests), endpoint.requests, endpoint.retries) == (2, 2, 1)
    assert server.bodies[0] == server.bodies[1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 302])
def test_what_does_not_pass_fails_at_once(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda request: error(status, f"no,\nnot with {KEY}", location="/v1/elsewhere")) as server:
        (answer,), endpoint = ask(server)
    assert type(answer) is EndpointError and answer.status == status
    assert str(answer) == f"POST {server.url}/chat/completions failed: HTTP {status}: no, not with ***"
    assert (len(server.requests), endpoint.retries) == (1, 0)


def test_a_spent_quota_fails_at_once() -> None:
    body = {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}
    with serving(lambda request: Reply(body, 429)) as server:
        (answer,), _ = ask(server)
    assert "HTTP 429: You exceeded your current quota." in str(answer) and len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "This model's maximum context length is 4096 tokens.", "code": 400}},
        {"error": {"message": "too much", "code": "context_length_exceeded"}},
        {"message": "input exceeds the context window: context_length_exceeded"},
    ],
)
def test_a_context_that_is_too_short_has_an_error_of_its_own(body: Any) -> None:
    with serving(lambda request: Reply(body, 400)) as server:
        (answer,), _ = ask(server)
    assert type(answer) is ContextOverflowError


def test_retries_end() -> None:
    with serving(lambda request: error(503, "down for ever")) as server:
        (answer,), _ = ask(server, retries=2)
        assert len(server.requests) == 3
        expected = f"POST {server.url}/chat/completions failed after 2 retries: HTTP 503: down for ever"
        assert str(answer) == expected
        (answer,), _ = ask(server, retries=0)
        assert len(server.requests) == 4 and isinstance(answer, EndpointError)


def test_the_budget_of_retries_is_everybodys() -> None:
    with serving(lambda request: error(500, "oops")) as server:
        answers, endpoint = ask(server, n=6, retries=50, retry_budget=4)
    assert all(isinstance(a, EndpointError) for a in answers)
    assert (endpoint.retries, len(server.requests)) == (4, 6 + 4)
    assert all("and the 4 retries of endpoint.retry_budget are used up: HTTP 500: oops" in str(a) for a in answers)


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        (answer,), endpoint = ask(url, retries=1)
    assert isinstance(answer, EndpointError) and answer.status is None and endpoint.requests == 2
    assert str(answer).startswith(f"POST {url}/chat/completions failed after 1 retries: ConnectError: ")


def test_the_servers_pause_is_kept_by_everybody() -> None:
    pause = 0.8

    def answer(request: Request) -> Reply:
        return error(429, "slow down", Retry_After=str(pause)) if request.number == 0 else GOOD

    with serving(answer) as server:
        answers, _ = ask(server, n=4, concurrency=1)
    assert all(a == GOOD.body for a in answers)
    start, *others = [r.at for r in server.requests]
    assert min(others) - start >= pause - 0.05, "others went on meanwhile"


def test_a_pause_that_is_too_long_ends_the_wait() -> None:
    with serving(lambda request: error(429, "come back tomorrow", Retry_After="86400")) as server:
        (answer,), _ = ask(server)
    assert len(server.requests) == 1
    assert "asks for a pause of 86400 s, more than endpoint.longest_wait_s=120: HTTP 429: come back" in str(answer)


def test_hundreds_at_once_and_no_more_than_allowed() -> None:
    with serving(lambda request: Reply(GOOD.body, delay_s=1.0)) as server:
        answers, _ = ask(server, n=200, concurrency=200)
    assert all(a == GOOD.body for a in answers) and server.most_at_once > 100
    with serving(lambda request: Reply(GOOD.body, delay_s=0.02)) as server:
        answers, _ = ask(server, n=40, concurrency=5)
    assert all(a == GOOD.body for a in answers) and server.most_at_once == 5


def test_requests_keep_their_rate() -> None:
    with serving(lambda request: GOOD) as server:
        ask(server, n=23, requests_per_minute=200)
    times = [r.at for r in server.requests]
    assert times[22] - times[0] >= 3 / 3 - 0.1, "twenty at once, then three a second"


def test_tokens_keep_their_rate_and_unused_ones_come_back() -> None:
    def answer(request: Request) -> Reply:
        return Reply(message("a", prompt_tokens=3, completion_tokens=1))

    with serving(answer) as server:
        ask(server, n=12, tokens=1000, tokens_per_minute=10_000, concurrency=1)
        frugal = server.requests[-1].at - server.requests[0].at
    assert frugal < 60, "they would take more than a minute if all reserved tokens counted"
    with serving(lambda request: Reply(message("a", prompt_tokens=900, completion_tokens=100))) as server:
        ask(server, n=7, tokens=1000, tokens_per_minute=60_000, concurrency=1)
    times = [r.at for r in server.requests]
    assert times[6] - times[0] >= 1 / 0.9 - 0.1, "six at once, then 0.9 a second"


@pytest.mark.parametrize("per_minute", [1, 2, 7, 60, 1000])
def test_no_minute_sees_more_than_the_limit(per_minute: int) -> None:
    rng = np.random.default_rng(per_minute)
    bucket, now = RateBucket(per_minute, 100.0), 100.0
    begun = []
    for _ in range(4 * per_minute + 20):
        now += rng.choice([0.0, rng.exponential(30 / per_minute), 100.0], p=[0.7, 0.28, 0.02])
        begun.append(now + bucket.reserve(1, now))
    assert begun == sorted(begun)
    times = np.array(begun)
    inside = np.searchsorted(times, times + 60, side="right") - np.arange(len(times))
    assert inside.max() <= per_minute


def test_a_busy_bucket_gives_nearly_all_that_is_allowed() -> None:
    bucket = RateBucket(600, 0.0)
    waits = [bucket.reserve(1, 0.0) for _ in range(3000)]
    assert 3000 / (waits[-1] / 60) > 0.9 * 600
    assert bucket.reserve(1, 1e6) == 0, "a rest fills it"
    bucket.settle(1, 5000, 1e6)
    assert bucket.reserve(1, 1e6) > 400, "what was used beyond what was reserved is charged"
    with pytest.raises(ValueError, match="per_minute=0"):
        RateBucket(0, 0.0)


def test_waits_double_and_are_equal_in_equal_runs() -> None:
    for request in range(50):
        waits = [backoff_s(0, request, attempt) for attempt in range(12)]
        assert all(0.5 * min(60, 0.5 * 2**i) <= w <= min(60, 0.5 * 2**i) for i, w in enumerate(waits))
        assert waits == [backoff_s(0, request, attempt) for attempt in range(12)]
    assert len({backoff_s(seed, request, 0) for seed in range(9) for request in range(9)}) == 81
    assert backoff_s(0, 0, 10**6) <= 60


def test_reading_retry_after() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert retry_after({"retry-after": "7"}, now) == 7
    assert retry_after({"retry-after": "0.5"}, now) == 0.5
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}, now) == 1.5
    date = format_datetime(now + timedelta(seconds=42), usegmt=True)
    assert retry_after({"retry-after": date}, now) == 42
    assert retry_after({"retry-after": format_datetime(now - timedelta(days=1), usegmt=True)}, now) == 0
    for nonsense in ("", "soon", "-3", "nan", "inf", "1e3", "9" * 30, "Tue, 99 Foo 2030"):
        assert retry_after({"retry-after": nonsense}, now) is None


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"error": {"message": "m"}}', "m"),
        ('{"error": "plain"}', "plain"),
        ('{"detail": "d"}', "d"),
        ('{"error": {"message": 3}}', '{"error": {"message": 3}}'),
        ("<b>\x1b[31mred\n</b>", "<b> [31mred </b>"),
        ("", "the answer is empty"),
        ("x" * 9999, "x" * 500 + "..."),
        ("[" * 99_999, "[" * 500 + "..."),
    ],
)
def test_what_a_server_says_is_told_in_one_line(body: str, told: str) -> None:
    assert answered_with(500, {}, body).told == f"HTTP 500: {told}"


def test_proxies_do_not_capture_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(lambda request: GOOD) as server:
        (answer,), _ = ask(server, retries=0)
    assert answer == GOOD.body
    assert is_loopback("http://localhost:1/v1") and is_loopback("http://[::1]/v1") and is_loopback("http://127.3.2.1")
    assert not is_loopback("http://localhost.example.com") and not is_loopback("https://10.0.0.1/v1")


def test_proxies_are_used_for_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda request: GOOD) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        (answer,), _ = ask("http://model.invalid/v1", retries=0)
    assert answer == GOOD.body
    assert [r.path for r in proxy.requests] == ["http://model.invalid/v1/chat/completions"]


def test_the_key_is_sent_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    caplog.set_level(0)
    with serving(first(error(500, f"what is {KEY}?"))) as server:
        (answer,), endpoint = ask(server)
    assert answer == GOOD.body
    assert {r.headers["authorization"] for r in server.requests} == {f"Bearer {KEY}"}
    assert "what is ***?" in caplog.text and KEY not in caplog.text
    assert KEY not in repr(endpoint) and KEY not in repr(endpoint.config)
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving(lambda request: GOOD) as server:
        ask(server)
    assert "authorization" not in server.requests[0].headers
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}é")
    with pytest.raises(ValueError, match="OPENAI_API_KEY holds characters") as caught:
        ask(server)
    assert KEY not in str(caught.value)


def test_where_the_endpoint_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"endpoint\.base_url is empty and OPENAI_BASE_URL is not set"):
        resolved_url(EndpointConfig())
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1/")
    assert resolved_url(EndpointConfig()) == "http://localhost:8000/v1"
    assert resolved_url(EndpointConfig(base_url="https://h/v2")) == "https://h/v2"
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    with pytest.raises(ValueError, match="OPENAI_BASE_URL='localhost:8000' is no base URL"):
        resolved_url(EndpointConfig())
    with pytest.raises(ValueError, match="user name or password") as caught:
        EndpointConfig(base_url=f"https://me:{KEY}@host/v1")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EndpointConfig(concurrency=0), r"endpoint\.concurrency=0 must be at least 1"),
        (lambda: EndpointConfig(retries=-1), r"endpoint\.retries=-1"),
        (lambda: EndpointConfig(tokens_per_minute=-5), r"endpoint\.tokens_per_minute=-5"),
        (lambda: EndpointConfig(tools="xml"), r"endpoint\.tools='xml' is unknown; choose native or text"),
        (lambda: EndpointConfig(timeout_s=0), r"endpoint\.timeout_s=0"),
        (lambda: EndpointConfig(top_logprobs=1), r"endpoint\.top_logprobs=1"),
        (lambda: EndpointConfig(base_url="ftp://h"), r"endpoint\.base_url='ftp://h' is no base URL"),
        (lambda: EndpointConfig(base_url="http://h:port/v1"), "is no base URL"),
        (lambda: EngineConfig(name="openai"), r"engine\.name='openai' cannot train: an endpoint's weights are not"),
    ],
)
def test_bad_settings(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_extra_fields_are_put_in_and_taken_out() -> None:
    with serving(lambda request: GOOD) as server:
        ask(server, extra={"top_p": 0.9, "n": None})
    assert server.bodies == [{"top_p": 0.9}]

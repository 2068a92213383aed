"""Requests to an OpenAI-compatible endpoint: many at once, within its limits, tried again where that can help.

HTTP is httpx2's: asynchronous, kept up, and brought along by `transformers` through `huggingface_hub`. The `openai`
package would add a second layer of retries that knows no common budget.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

try:
    import httpx2
except ImportError as error:
    raise ImportError("an endpoint needs httpx2; install the extra: pip install 'elpo[openai]'") from error

from elpo_agent.engines.openai.failures import (
    ContextOverflowError,
    EndpointError,
    Failure,
    answered_with,
    backoff_s,
)
from elpo_agent.engines.openai.limits import RateBucket
from elpo_agent.engines.openai.settings import EndpointConfig, api_key, is_loopback, resolved_url

logger = logging.getLogger(__name__)

Flaw = Callable[[Mapping[str, Any]], str | None]


def _no_flaw(answer: Mapping[str, Any]) -> str | None:
    return None


class Endpoint:
    """An endpoint in use. An async context manager; it belongs to the event loop that enters it.

    The key never leaves the request's header: what servers say is told with the key blotted out. Redirects are not
    followed, which could carry it elsewhere. Proxies of the environment are used, but never for this machine's own
    addresses.

    Args:
        config: where it is, and its limits.
        seed: of the waits' jitter; >= 0.
    Attributes:
        url: the base URL.
        requests, retries: made so far.
    Raises:
        ValueError: no base URL, or a key that cannot be sent.
    """

    def __init__(self, config: EndpointConfig, seed: int = 0) -> None:
        self.config = config
        self.url = resolved_url(config)
        self.requests = 0
        self.retries = 0
        self._key = api_key()
        self._seed = seed
        self._numbers = itertools.count()
        self._slots = asyncio.Semaphore(config.concurrency)
        self._not_before = 0.0
        now = time.monotonic()
        self._request_rate = RateBucket(config.requests_per_minute, now) if config.requests_per_minute else None
        self._token_rate = RateBucket(config.tokens_per_minute, now) if config.tokens_per_minute else None
        self._client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        self._client = httpx2.AsyncClient(
            headers={} if self._key is None else {"Authorization": f"Bearer {self._key}"},
            timeout=None,  # one for the whole attempt is set where it is made
            limits=httpx2.Limits(
                max_connections=self.config.concurrency, max_keepalive_connections=self.config.concurrency
            ),
            trust_env=not is_loopback(self.url),
            follow_redirects=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def get(self, path: str) -> dict[str, Any]:
        """The JSON object at `path`; raises as `post` does."""
        return await self._request("GET", path, None, 0, _no_flaw)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        tokens: int,
        flaw: Callable[[Mapping[str, Any]], str | None] = _no_flaw,
    ) -> dict[str, Any]:
        """The JSON object that the endpoint answers with.

        Args:
            path: below the base URL, with its slash.
            body: JSON values; the configuration's `extra` is put on top.
            tokens: what the request takes at most, prompt included; used for the rate of tokens.
            flaw: what is wrong with an answer that is JSON and still unusable, or None; such a request is tried again.
        Raises:
            ContextOverflowError: the server says that the conversation is too long for the model.
            EndpointError: refused, or failing after all that may be tried again.
        """
        merged = {**body, **self.config.extra}
        return await self._request("POST", path, {k: v for k, v in merged.items() if v is not None}, tokens, flaw)

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        tokens: int,
        flaw: Flaw,
    ) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        number = next(self._numbers)
        for attempt in itertools.count():
            async with self._slots:
                await self._admitted(tokens)
                answer = await self._attempt(method, path, content)
            self._settle(tokens, {} if isinstance(answer, Failure) else answer)
            if not isinstance(answer, Failure):
                complaint = flaw(answer)
                if complaint is None:
                    return answer
                answer = Failure(None, complaint, transient=True)
            wait = backoff_s(self._seed, number, attempt) + (answer.retry_after_s or 0.0)
            self._give_up(answer, method, path, attempt)
            if answer.retry_after_s is not None:  # the server means everybody
                self._not_before = max(self._not_before, time.monotonic() + answer.retry_after_s)
            self.retries += 1
            logger.info("%s %s%s: %s; again in %.1f s", method, self.url, path, answer.told, wait)
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _admitted(self, tokens: int) -> None:
        """Return when the request may begin."""
        now = time.monotonic()
        waits = [
            bucket.reserve(amount, now)
            for bucket, amount in ((self._request_rate, 1), (self._token_rate, tokens))
            if bucket is not None
        ]
        await asyncio.sleep(max([0.0, *waits]))
        while (left := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def _settle(self, tokens: int, answer: Mapping[str, Any]) -> None:
        """Correct the rate of tokens by what the answer says was used; a failure used none."""
        if self._token_rate is not None:
            used = token_usage(answer)[0] + token_usage(answer)[1]
            self._token_rate.settle(tokens, used if used or not answer else tokens, time.monotonic())

    async def _attempt(self, method: str, path: str, content: bytes | None) -> dict[str, Any] | Failure:
        assert self._client is not None, "use the endpoint in an `async with` block"
        self.requests += 1
        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(self.config.timeout_s):
                response = await self._client.request(method, self.url + path, content=content, headers=headers)
        except (TimeoutError, httpx2.TimeoutException):
            return Failure(None, f"no whole answer within {self.config.timeout_s:g} s", transient=True)
        except httpx2.UnsupportedProtocol as error:
            return Failure(None, self._without_key(str(error)), transient=False)
        except httpx2.RequestError as error:  # refused, broken or garbled connections
            reason = str(error) or "the connection broke"
            return Failure(None, f"{type(error).__name__}: {self._without_key(reason)}", transient=True)
        if not response.is_success:
            return answered_with(response.status_code, response.headers, self._without_key(response.text))
        try:
            answer = json.loads(response.content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            shown = self._without_key(response.text[:80])
            return Failure(response.status_code, f"the answer is no JSON object: {shown!r}", transient=True)
        return answer

    def _give_up(self, failure: Failure, method: str, path: str, attempt: int) -> None:
        """Raise unless the request may be tried again."""
        config, why = self.config, ""
        if failure.transient:
            pause = failure.retry_after_s or 0.0
            if attempt >= config.retries:
                why = f" after {attempt} retries"
            elif self.retries >= config.retry_budget:
                why = f", and the {config.retry_budget} retries of endpoint.retry_budget are used up"
            elif pause > config.longest_wait_s:
                why = (
                    f", and the server asks for a pause of {pause:.0f} s, more than "
                    f"endpoint.longest_wait_s={config.longest_wait_s:g}"
                )
            else:
                return
        kind = ContextOverflowError if failure.overflow else EndpointError
        raise kind(f"{method} {self.url}{path} failed{why}: {failure.told}", failure.status)

    def _without_key(self, text: str) -> str:
        return text if self._key is None else text.replace(self._key, "***")


def token_usage(answer: Mapping[str, Any]) -> tuple[int, int]:
    """Prompt and generated tokens by an answer's `usage`; 0 where it does not say."""
    usage = answer.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    prompt, generated = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return prompt if isinstance(prompt, int) else 0, generated if isinstance(generated, int) else 0

"""The connections to one Redis server: their timeouts, and what becomes of the driver's errors.

No command is retried here: after a lost answer nobody knows whether a script ran, and a blind second run would call the
process's own outcome another's. A connection that broke while idle is replaced when it is next taken; one that died
without a word cannot be told from a good one, so after a call without an answer all idle ones are replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from pcs_backend.errors import ConfigError, StoreUnavailableError

CONNECT_TIMEOUT_S = 2.0
"""How long one connection may take."""

CALL_TIMEOUT_S = 5.0
"""How long one command may take, waiting for a connection included."""

CONNECTIONS_MAX = 16
"""Connections one process holds; further calls wait."""

_DRIVER_ERRORS = (OSError, RedisError, RuntimeError)
"""uvloop says RuntimeError when the driver writes to a connection that was reset a moment before, and the driver lets it
pass."""


class RedisRefusedError(StoreUnavailableError):
    """Redis answered, but with an error: an unknown or forbidden command, full memory, a failed disk."""


class RedisConnection:
    """Runs commands and scripts. Every failure is `StoreUnavailableError`."""

    def __init__(self, address: str, call_timeout_s: float) -> None:
        """Check the address; nothing is connected yet.

        Args:
            address: `host:port`, or a `redis://`, `rediss://` or `unix://` URL.
            call_timeout_s: How long one command may take.

        Raises:
            ConfigError: The address is none.
        """
        self._settings = _settings(address, call_timeout_s)
        self._call_timeout_s = call_timeout_s
        self._client: Redis | None = None
        self._idle_may_be_dead = False

    async def open(self) -> None:
        """Make the pool and check that the server answers. May be called again after it failed."""
        if self._client is None:
            pool = BlockingConnectionPool(
                **self._settings, max_connections=CONNECTIONS_MAX, timeout=self._call_timeout_s
            )
            self._client = Redis.from_pool(pool)
        await self.call("PING")

    async def close(self) -> None:
        """Give the connections back."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(*_DRIVER_ERRORS):  # what is broken is closed already
                async with asyncio.timeout(self._call_timeout_s):
                    await client.aclose()

    async def call(self, command: str, *arguments: int | str | bytes) -> object:
        """Return the reply to one command."""
        if self._client is None:
            raise StoreUnavailableError("Redis: not open")
        answered = False
        try:
            with _translated():
                async with asyncio.timeout(self._call_timeout_s):
                    await self._drop_what_may_be_dead(self._client)
                    reply: object = await self._client.execute_command(command, *arguments)  # type: ignore[no-untyped-call]
                    answered = True
                    return reply
        except (RedisRefusedError, _UnknownScriptError):
            answered = True
            raise
        finally:
            self._idle_may_be_dead |= not answered

    async def script(
        self, script: str, keys: Sequence[str], arguments: Sequence[int | str | bytes]
    ) -> object:
        """Return what a script returns."""
        digest = _digest(script)
        try:
            return await self.call("EVALSHA", digest, len(keys), *keys, *arguments)
        except _UnknownScriptError:  # the first call ever, or the first after a restart; EVAL also loads it
            return await self.call("EVAL", script, len(keys), *keys, *arguments)

    async def _drop_what_may_be_dead(self, client: Redis) -> None:
        if self._idle_may_be_dead:
            self._idle_may_be_dead = False
            await client.connection_pool.disconnect(inuse_connections=False)


@functools.cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


class _UnknownScriptError(StoreUnavailableError):
    """Redis does not know the script, and ran nothing."""


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn a driver's error into ours; its message may hold a key or the address, so only its kind is told."""
    try:
        yield
    except NoScriptError:
        raise _UnknownScriptError("Redis: unknown script") from None
    except ResponseError as error:
        raise RedisRefusedError(f"Redis: {type(error).__name__}") from None
    except _DRIVER_ERRORS as error:
        raise StoreUnavailableError(f"Redis: {type(error).__name__}") from None


def _settings(address: str, call_timeout_s: float) -> dict[str, Any]:
    with contextlib.suppress(ValueError, TypeError, RedisError):
        settings: dict[str, Any] = {
            **parse_url(address if "://" in address else f"redis://{address}"),
            # Ours win over the URL's: without them this module cannot keep its word.
            "socket_connect_timeout": min(CONNECT_TIMEOUT_S, call_timeout_s),
            "socket_timeout": call_timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "protocol": 2,
            "decode_responses": False,
        }
        # Made once and thrown away: an unknown option in the URL is found now and not at the first request.
        probe = {name: value for name, value in settings.items() if name != "connection_class"}
        settings.get("connection_class", Connection)(**probe)
        return settings
    raise ConfigError("REDIS_ADDR is neither host:port nor a redis:// URL that can be used")

"""Servers that tests share: one of each a test process, started when first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers import PostgresServer, RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def redis_address(redis_server: RedisServer) -> str:
    """The address of a running, empty Redis."""
    redis_server.start()
    redis_server.flush()
    return redis_server.address


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """The connection string of a new, empty database."""
    postgres_server.start()
    dsn = postgres_server.create_database()
    yield dsn
    # Left behind, hundreds of files a database would be synced at each restart of the server.
    postgres_server.start()
    postgres_server.drop_database(dsn)

"""Servers that tests share: one of each a test process, started when first asked for."""

from __future__ import annotations

from collections import defaultdict
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests found that a pass does not tell."""
    print_levels(terminalreporter)
    print_tables(terminalreporter)


def print_levels(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many levels of durability this machine could not test.

    A level's tests record the property `durability_level`: why it cannot run, or nothing.
    """
    recorded = {
        str(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "durability_level"
    }
    if recorded:
        missing = sorted(recorded - {""})
        why = f" ({'; '.join(missing)})" if missing else ""
        terminalreporter.write_line(f"durability levels that could not run: {len(missing)}{why}")


def print_tables(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests filled with `record_property(title, "cell | cell | …")`, whatever else is shown.

    A title reads `name: column | column | …`. Rows that differ in the columns between the second and the last only are
    printed as one, with all that stands there.
    """
    tables: dict[str, dict[tuple[str, ...], list[set[str]]]] = defaultdict(dict)
    for report in terminalreporter.getreports("passed"):
        for title, line in report.user_properties:
            if " | " not in title:
                continue
            first, second, *middle, last = str(line).split(" | ")
            cells = tables[title].setdefault((first, second, last), [set() for _ in middle])
            for cell, value in zip(cells, middle, strict=True):
                cell.add(value)
    for title, rows in tables.items():
        terminalreporter.section(title.partition(":")[0])
        terminalreporter.write_line(title.partition(": ")[2])
        for (first, second, last), middle in rows.items():
            cells = [first, second, *(" ".join(sorted(cell)) for cell in middle), last]
            terminalreporter.write_line(" | ".join(cells))

"""The database's schema, as numbered SQL files that are never changed once released, and what applies them.

All that is missing is applied in one transaction under an advisory lock, so that replicas that start together wait for
one another and a failed start leaves the old schema. No lock is waited for longer than `LOCK_WAIT_MS`, since everybody
else would wait behind it: who does not get one fails and comes again. A database that is newer than this program is
refused.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from pcs_backend.errors import DataError

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

LOCK_KEY = 0x7063735F736368  # "pcs_sch" in ASCII; advisory locks are by number

LOCK_WAIT_MS = 4_000
"""Longest wait for another replica's migration, or for whoever holds a table that is to be changed."""

_IS_TABLE_THERE = "SELECT to_regclass('pcs_schema_migrations') IS NOT NULL"
# When it was applied is for people, by the database's own clock.
_MAKE_TABLE = """
    CREATE TABLE pcs_schema_migrations (
        version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
    )"""


class Migration(NamedTuple):
    """One step of the schema.

    Attributes:
        version: From 1, without gaps.
        name: The file's name without number and suffix.
        sql: One or more statements without parameters.
    """

    version: int
    name: str
    sql: str


def load_migrations() -> list[Migration]:
    """Return all migrations in order, from the installed package."""
    migrations = []
    for entry in files(__name__).iterdir():
        stem, dot, suffix = entry.name.partition(".")
        if dot and suffix == "sql":
            number, _, name = stem.partition("_")
            migrations.append(Migration(int(number), name, entry.read_text(encoding="utf-8")))
    return sorted(migrations)


async def apply_migrations(
    connection: asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record],
    migrations: list[Migration],
    timeout_s: float,
    *,
    migration_timeout_s: float,
) -> list[int]:
    """Bring the database's schema up to date. On return it is committed.

    Args:
        connection: Outside a transaction.
        migrations: From `load_migrations`.
        timeout_s: For each statement that only looks.
        migration_timeout_s: For each migration, which may move rows.

    Returns:
        The versions that this call applied.

    Raises:
        DataError: The database has a version that this program does not know.
        asyncpg.LockNotAvailableError: Another replica migrates, or someone holds a table.
    """
    known = {migration.version for migration in migrations}
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}", timeout=timeout_s)
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY, timeout=timeout_s)
        if not await connection.fetchval(_IS_TABLE_THERE, timeout=timeout_s):
            await connection.execute(_MAKE_TABLE, timeout=timeout_s)
        rows = await connection.fetch("SELECT version FROM pcs_schema_migrations", timeout=timeout_s)
        applied = {row["version"] for row in rows}
        if unknown := applied - known:
            raise DataError(
                f"the database has schema version {max(unknown)}, newer than this program's {max(known)}: "
                "start a newer release"
            )
        missing = [migration for migration in migrations if migration.version not in applied]
        for migration in missing:
            await connection.execute(migration.sql, timeout=migration_timeout_s)
            await connection.execute(
                "INSERT INTO pcs_schema_migrations (version, name) VALUES ($1, $2)",
                migration.version,
                migration.name,
                timeout=timeout_s,
            )
    return [migration.version for migration in missing]

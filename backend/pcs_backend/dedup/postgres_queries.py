"""What is asked of PostgreSQL. Every statement is a transaction of its own, and whole.

Rows are locked in key order everywhere, so that replicas that take the same keys wait for one another and do not
deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from pcs_backend.outcome import Outcome

# Tables that are gone are an outage too.
PING = """
    SELECT FROM pcs_outcomes, pcs_escalations, pcs_conflicts, pcs_labels, pcs_artifacts, pcs_promotions LIMIT 0"""

# Every statement finds its rows by an index, whatever the tables held when it was planned: so it is planned once a
# connection, and none is planned for an empty table and run on a full one.
SESSION = """
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET jit = off"""

# The outcome and its queue entry are one statement: neither is ever there without the other. Nothing is answered for
# what was stored. What was not comes back with the outcome that was there first; with none where that has expired, or
# was not yet to be seen when the statement began: a conflicting insert that is not yet committed is waited for, but the
# statement sees what was there before it.
#
# A column that is the same in all rows comes once: its array is empty, the value beside it counts.
PUT_FIRST = """
    WITH candidate AS MATERIALIZED (
        SELECT coalesce(c.tenant, $5) AS tenant, c.pcs_id, coalesce(c.status, $7) AS status, c.body, c.fingerprint,
            coalesce(c.params_version, $9) AS params_version, coalesce(c.key_id, $11) AS key_id,
            coalesce(c.provenance, $13) AS provenance, coalesce(c.stored_at_ms, $15) AS stored_at_ms,
            coalesce(c.expires_at_ms, $17) AS expires_at_ms
        FROM unnest(
            $1::text[], $2::bytea[], $3::text[], $4::text[], $6::smallint[], $8::text[], $10::text[], $12::text[],
            $14::bigint[], $16::bigint[]
        ) AS c (
            pcs_id, body, fingerprint, tenant, status, params_version, key_id, provenance, stored_at_ms, expires_at_ms
        )
    ), stored AS (
        INSERT INTO pcs_outcomes AS o (
            tenant, pcs_id, status, body, fingerprint, params_version, key_id, provenance, stored_at_ms, expires_at_ms
        )
        SELECT * FROM candidate AS c ORDER BY c.tenant COLLATE "C", c.pcs_id COLLATE "C"
        ON CONFLICT DO NOTHING
        RETURNING tenant, pcs_id, status, stored_at_ms
    ), queued AS (
        INSERT INTO pcs_escalations (tenant, pcs_id, stored_at_ms)
        SELECT tenant, pcs_id, stored_at_ms FROM stored WHERE status = 202
    )
    SELECT c.tenant, c.pcs_id, o.status, o.body, o.fingerprint, o.params_version, o.key_id, o.provenance,
        o.stored_at_ms, o.expires_at_ms
    FROM candidate AS c LEFT JOIN pcs_outcomes AS o
        ON o.tenant = c.tenant AND o.pcs_id = c.pcs_id AND o.expires_at_ms > $18
    WHERE (SELECT count(*) FROM stored) < (SELECT count(*) FROM candidate)
        AND (c.tenant, c.pcs_id) NOT IN (SELECT tenant, pcs_id FROM stored)"""

GET = """
    SELECT o.tenant, o.pcs_id, o.status, o.body, o.fingerprint, o.params_version, o.key_id, o.provenance,
        o.stored_at_ms, o.expires_at_ms
    FROM pcs_outcomes AS o JOIN unnest($1::text[], $2::text[]) AS k (tenant, pcs_id) USING (tenant, pcs_id)
    WHERE o.expires_at_ms > $3"""

FORGET_EXPIRED = """
    WITH expired AS (
        SELECT o.tenant, o.pcs_id
        FROM pcs_outcomes AS o JOIN unnest($1::text[], $2::text[]) AS k (tenant, pcs_id) USING (tenant, pcs_id)
        WHERE o.expires_at_ms <= $3
        ORDER BY o.tenant, o.pcs_id
        FOR UPDATE OF o
    )
    DELETE FROM pcs_outcomes AS o USING expired AS e
    WHERE o.tenant = e.tenant AND o.pcs_id = e.pcs_id AND o.expires_at_ms <= $3"""

PARTITIONS = 8
"""Of the outcomes: the tables `pcs_outcomes_0` and so on."""

# One partition a statement, and few rows: locks are few and short. What another replica purges or replaces just now is
# skipped, not waited for.
PURGE_EXPIRED = tuple(
    f"""
    WITH gone AS (
        DELETE FROM pcs_outcomes_{partition} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM pcs_outcomes_{partition} WHERE expires_at_ms <= $1
            ORDER BY expires_at_ms LIMIT $2
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING 1
    )
    SELECT count(*) FROM gone"""  # noqa: S608 - the number is ours
    for partition in range(PARTITIONS)
)

LIST_ESCALATIONS = """
    SELECT e.pcs_id, o.body, e.stored_at_ms
    FROM pcs_escalations AS e JOIN pcs_outcomes AS o USING (tenant, pcs_id)
    WHERE e.tenant = $1 AND e.acked_at_ms IS NULL AND o.expires_at_ms > $2
    ORDER BY e.stored_at_ms, e.pcs_id LIMIT $3"""

ACK_ESCALATIONS = """
    WITH open AS (
        SELECT e.tenant, e.pcs_id
        FROM pcs_escalations AS e
            JOIN unnest($1::text[], $2::text[]) AS k (tenant, pcs_id) USING (tenant, pcs_id)
            JOIN pcs_outcomes AS o USING (tenant, pcs_id)
        WHERE e.acked_at_ms IS NULL AND o.expires_at_ms > $3
        ORDER BY e.tenant, e.pcs_id
        FOR UPDATE OF e
    )
    UPDATE pcs_escalations AS e SET acked_at_ms = $3
    FROM open WHERE e.tenant = open.tenant AND e.pcs_id = open.pcs_id
    RETURNING e.tenant, e.pcs_id"""

NOTE_CONFLICTS = """
    INSERT INTO pcs_conflicts (tenant, pcs_id, fingerprint, seen_at_ms)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS c (tenant, pcs_id, fingerprint, seen_at_ms)
    ORDER BY c.tenant COLLATE "C", c.pcs_id COLLATE "C", c.fingerprint COLLATE "C"
    ON CONFLICT DO NOTHING
    RETURNING tenant"""

TRIM_CONFLICTS = """
    DELETE FROM pcs_conflicts
    WHERE tenant = $1 AND (seen_at_ms, pcs_id, fingerprint) <= (
        SELECT seen_at_ms, pcs_id, fingerprint FROM pcs_conflicts WHERE tenant = $1
        ORDER BY seen_at_ms DESC, pcs_id DESC, fingerprint DESC
        OFFSET $2 LIMIT 1
    )"""

LIST_CONFLICTS = """
    SELECT pcs_id, fingerprint, seen_at_ms FROM pcs_conflicts WHERE tenant = $1
    ORDER BY seen_at_ms DESC, pcs_id DESC, fingerprint DESC LIMIT $2"""

SETTINGS = """
    SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')"""

_COLUMNS = tuple(map(attrgetter, ("pcs_id", "body", "fingerprint")))
_OFTEN_SHARED = tuple(
    map(
        attrgetter,
        (
            "shared.tenant",
            "shared.status",
            "shared.params_version",
            "shared.key_id",
            "provenance",
            "shared.stored_at_ms",
            "shared.expires_at_ms",
        ),
    )
)


def put_first_arguments(outcomes: Sequence[Outcome], now_ms: int) -> list[object]:
    """Return the arguments of `PUT_FIRST`.

    Args:
        outcomes: At least one, of different keys.
        now_ms: What has expired by then is not answered with, milliseconds since 1970.
    """
    arguments: list[object] = [list(map(column, outcomes)) for column in _COLUMNS]
    for column in _OFTEN_SHARED:
        values = list(map(column, outcomes))
        is_shared = values.count(values[0]) == len(values)
        arguments += [[] if is_shared else values, values[0]]
    return [*arguments, now_ms]

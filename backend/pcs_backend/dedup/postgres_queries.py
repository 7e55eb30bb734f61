"""What is asked of PostgreSQL. Every statement is a transaction of its own, and whole.

Rows are locked in key order everywhere, so that replicas that take the same keys wait for one another and do not
deadlock.
"""

from __future__ import annotations

# Tables that are gone are an outage too.
PING = "SELECT FROM pcs_outcomes, pcs_escalations, pcs_conflicts LIMIT 0"

# The outcome and its queue entry are one statement: neither is ever there without the other. A conflicting insert that
# is not yet committed is waited for, so that the loser's next statement sees the winner.
PUT_FIRST = """
    WITH stored AS (
        INSERT INTO pcs_outcomes AS o (
            tenant, pcs_id, status, body, fingerprint, params_version, key_id, provenance, stored_at_ms, expires_at_ms
        )
        SELECT o.tenant, o.pcs_id, o.status, o.body, o.fingerprint, o.params_version, o.key_id, o.provenance,
            o.stored_at_ms, o.expires_at_ms
        FROM unnest(
            $1::text[], $2::text[], $3::smallint[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::bigint[], $10::bigint[]
        ) AS o (
            tenant, pcs_id, status, body, fingerprint, params_version, key_id, provenance, stored_at_ms, expires_at_ms
        )
        ORDER BY o.tenant COLLATE "C", o.pcs_id COLLATE "C"
        ON CONFLICT DO NOTHING
        RETURNING tenant, pcs_id, status, stored_at_ms
    ), queued AS (
        INSERT INTO pcs_escalations (tenant, pcs_id, stored_at_ms)
        SELECT tenant, pcs_id, stored_at_ms FROM stored WHERE status = 202
    )
    SELECT tenant, pcs_id FROM stored"""

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

# What another replica purges or replaces just now is skipped, not waited for.
PURGE_EXPIRED = """
    WITH expired AS (
        SELECT tenant, pcs_id FROM pcs_outcomes WHERE expires_at_ms <= $1
        ORDER BY expires_at_ms LIMIT $2
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM pcs_outcomes AS o USING expired AS e WHERE o.tenant = e.tenant AND o.pcs_id = e.pcs_id
        RETURNING 1
    )
    SELECT count(*) FROM gone"""

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

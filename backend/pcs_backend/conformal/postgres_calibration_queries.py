"""What the calibration store asks of PostgreSQL.

As `dedup.postgres_queries`: each statement is whole, rows are locked in
key order, and each finds its rows by an index.
"""

from __future__ import annotations

# A label that replaces another is the same row.
PUT_LABELS = """
    INSERT INTO pcs_labels AS o (tenant, pcs_id, label, labelled_at_ms, data)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[])
        AS l (tenant, pcs_id, label, labelled_at_ms, data)
    ORDER BY l.tenant COLLATE "C", l.pcs_id COLLATE "C"
    ON CONFLICT (tenant, pcs_id) DO UPDATE
        SET label = excluded.label, labelled_at_ms = excluded.labelled_at_ms, data = excluded.data"""

TRIM_LABELS = """
    WITH gone AS (
        SELECT tenant, pcs_id FROM pcs_labels
        WHERE tenant = $1 AND label = $2 AND (labelled_at_ms, pcs_id) <= (
            SELECT labelled_at_ms, pcs_id FROM pcs_labels WHERE tenant = $1 AND label = $2
            ORDER BY labelled_at_ms DESC, pcs_id DESC
            OFFSET $3 LIMIT 1
        )
        ORDER BY tenant, pcs_id
        FOR UPDATE
    )
    DELETE FROM pcs_labels AS l USING gone AS g WHERE l.tenant = g.tenant AND l.pcs_id = g.pcs_id"""

LIST_LABELS = """
    SELECT data FROM pcs_labels WHERE label = $1 AND labelled_at_ms >= $2 AND tenant = $4
    ORDER BY labelled_at_ms DESC, pcs_id DESC LIMIT $3"""

LIST_LABELS_OF_ALL = """
    SELECT data FROM pcs_labels WHERE label = $1 AND labelled_at_ms >= $2
    ORDER BY labelled_at_ms DESC, tenant DESC, pcs_id DESC LIMIT $3"""

COUNT_ARTIFACTS = """
    SELECT (SELECT count(*) FROM pcs_artifacts) AS kept, count(*) AS new FROM unnest($1::text[]) AS d (digest)
    WHERE NOT EXISTS (SELECT FROM pcs_artifacts AS a WHERE a.digest = d.digest)"""

KEEP = """
    INSERT INTO pcs_artifacts AS a (digest, data, needed_ms)
    SELECT d.digest, d.data, $3::bigint FROM unnest($1::text[], $2::bytea[]) AS d (digest, data)
    ORDER BY d.digest COLLATE "C"
    ON CONFLICT (digest) DO UPDATE SET needed_ms = excluded.needed_ms
    WHERE a.needed_ms < excluded.needed_ms - $4::bigint"""

FETCH = "SELECT digest, data FROM pcs_artifacts WHERE digest = ANY ($1::text[])"

# Locking the artifact keeps a purge away from it, and one that is purged meanwhile is not found. Of two that bring the same
# version the second is a conflict.
PROMOTE = """
    WITH last AS MATERIALIZED (
        SELECT version, digest FROM pcs_promotions WHERE scope = $1 ORDER BY version DESC LIMIT 1
    ), held AS MATERIALIZED (
        SELECT digest FROM pcs_artifacts
        WHERE digest = ANY (ARRAY[$3::text, (SELECT digest FROM last)])
        ORDER BY digest
        FOR UPDATE
    ), needed AS (
        UPDATE pcs_artifacts AS a SET needed_ms = greatest(a.needed_ms, $6::bigint) FROM held WHERE a.digest = held.digest
    )
    INSERT INTO pcs_promotions (scope, version, digest, promoted_by, note, promoted_at_ms)
    SELECT $1, $2::bigint, $3, $4::text, $5::text, $6
    WHERE $2 = coalesce((SELECT version FROM last), 0) + 1 AND EXISTS (SELECT FROM held WHERE digest = $3)
    ON CONFLICT DO NOTHING
    RETURNING version"""

TRIM_PROMOTIONS = "DELETE FROM pcs_promotions WHERE scope = $1 AND version <= $2"

LIST_PROMOTIONS = """
    SELECT scope, version, digest, promoted_by AS by, note, promoted_at_ms FROM pcs_promotions WHERE scope = $1
    ORDER BY version DESC LIMIT $2"""

# From scope to scope by the index, over the promotions that are no longer in force.
LIST_IN_FORCE = """
    WITH RECURSIVE scopes AS (
        (SELECT scope FROM pcs_promotions ORDER BY scope LIMIT 1)
        UNION ALL
        SELECT (SELECT p.scope FROM pcs_promotions AS p WHERE p.scope > s.scope ORDER BY p.scope LIMIT 1)
        FROM scopes AS s WHERE s.scope IS NOT NULL
    )
    SELECT p.* FROM scopes AS s CROSS JOIN LATERAL (
        SELECT scope, version, digest, promoted_by AS by, note, promoted_at_ms FROM pcs_promotions
        WHERE scope = s.scope ORDER BY version DESC LIMIT 1
    ) AS p
    ORDER BY p.scope LIMIT $1"""

# What another replica purges, or is about to bring into force, is skipped.
PURGE = """
    WITH gone AS (
        DELETE FROM pcs_artifacts WHERE ctid = ANY (ARRAY(
            SELECT a.ctid FROM pcs_artifacts AS a
            WHERE a.needed_ms < $1 AND NOT EXISTS (
                SELECT FROM pcs_promotions AS p
                WHERE p.digest = a.digest
                    AND p.version = (SELECT max(version) FROM pcs_promotions AS q WHERE q.scope = p.scope)
            )
            FOR UPDATE OF a SKIP LOCKED
        ))
        RETURNING 1
    )
    SELECT count(*) FROM gone"""

-- Outcomes, the escalation queue and conflicts. The tenant is in every key and index. Times are milliseconds since 1970
-- by the backend's clock. Collation C: ids are ASCII, and replicas must agree on the order in which they lock them.

CREATE TABLE pcs_outcomes (
    tenant         text COLLATE "C" NOT NULL,
    pcs_id         text COLLATE "C" NOT NULL,
    status         smallint NOT NULL,
    body           bytea NOT NULL,
    fingerprint    text NOT NULL,
    params_version text NOT NULL,
    key_id         text NOT NULL,
    provenance     text NOT NULL,
    stored_at_ms   bigint NOT NULL,
    expires_at_ms  bigint NOT NULL,
    PRIMARY KEY (tenant, pcs_id)
);

CREATE INDEX pcs_outcomes_by_expiry ON pcs_outcomes (expires_at_ms, tenant, pcs_id);

-- An entry goes with its outcome: there is no other way for one to be left behind.
CREATE TABLE pcs_escalations (
    tenant       text COLLATE "C" NOT NULL,
    pcs_id       text COLLATE "C" NOT NULL,
    stored_at_ms bigint NOT NULL,
    acked_at_ms  bigint,
    PRIMARY KEY (tenant, pcs_id),
    FOREIGN KEY (tenant, pcs_id) REFERENCES pcs_outcomes ON DELETE CASCADE
);

CREATE INDEX pcs_escalations_open ON pcs_escalations (tenant, stored_at_ms, pcs_id) WHERE acked_at_ms IS NULL;

CREATE TABLE pcs_conflicts (
    tenant      text COLLATE "C" NOT NULL,
    pcs_id      text COLLATE "C" NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    seen_at_ms  bigint NOT NULL,
    PRIMARY KEY (tenant, pcs_id, fingerprint)
);

CREATE INDEX pcs_conflicts_by_time ON pcs_conflicts (tenant, seen_at_ms, pcs_id, fingerprint);

-- Labels, what is kept under its SHA-256 (calibration sets and parameters), and promotions of sets. New tables alone:
-- nothing is locked that a process of the release before uses. The tenant of a promotion is its scope; an artifact has none,
-- because its digest is over the scope too.

CREATE TABLE pcs_labels (
    tenant         text COLLATE "C" NOT NULL,
    pcs_id         text COLLATE "C" NOT NULL,
    label          text COLLATE "C" NOT NULL,
    labelled_at_ms bigint NOT NULL,
    data           bytea NOT NULL,
    PRIMARY KEY (tenant, pcs_id)
);

CREATE INDEX pcs_labels_by_time ON pcs_labels (tenant, label, labelled_at_ms, pcs_id);
CREATE INDEX pcs_labels_of_all ON pcs_labels (label, labelled_at_ms, tenant, pcs_id);

CREATE TABLE pcs_artifacts (
    digest    text COLLATE "C" PRIMARY KEY,
    data      bytea NOT NULL,
    needed_ms bigint NOT NULL
);

CREATE INDEX pcs_artifacts_by_need ON pcs_artifacts (needed_ms);

CREATE TABLE pcs_promotions (
    scope          text COLLATE "C" NOT NULL,
    version        bigint NOT NULL,
    digest         text COLLATE "C" NOT NULL,
    promoted_by    text NOT NULL,
    note           text NOT NULL,
    promoted_at_ms bigint NOT NULL,
    PRIMARY KEY (scope, version)
);

CREATE INDEX pcs_promotions_by_digest ON pcs_promotions (digest);

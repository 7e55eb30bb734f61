-- Outcomes in partitions by a hash of their key: each has small indexes of its own, and is purged and vacuumed by itself.
--
-- Rows are moved: until this commits nobody reads or writes the two tables, for about 7 s a million rows, and the disk holds
-- them twice. Every name, column and constraint stays, so that processes of the release before go on when it is over; in
-- the meantime the store is down to them.

LOCK TABLE pcs_outcomes, pcs_escalations IN ACCESS EXCLUSIVE MODE;

ALTER TABLE pcs_escalations DROP CONSTRAINT pcs_escalations_tenant_pcs_id_fkey;

ALTER TABLE pcs_outcomes RENAME TO pcs_outcomes_whole;
ALTER INDEX pcs_outcomes_pkey RENAME TO pcs_outcomes_whole_pkey;
DROP INDEX pcs_outcomes_by_expiry;

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
    expires_at_ms  bigint NOT NULL
) PARTITION BY HASH (tenant, pcs_id);

-- Vacuumed when a twentieth has expired, and not first when a fifth has: what goes makes room for what comes.
CREATE TABLE pcs_outcomes_0 PARTITION OF pcs_outcomes FOR VALUES WITH (MODULUS 8, REMAINDER 0)
    WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE pcs_outcomes_1 PARTITION OF pcs_outcomes FOR VALUES WITH (MODULUS 8, REMAINDER 1)
    WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE pcs_outcomes_2 PARTITION OF pcs_outcomes FOR VALUES WITH (MODULUS 8, REMAINDER 2)
    WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE pcs_outcomes_3 PARTITION OF pcs_outcomes FOR VALUES WITH (MODULUS 8, REMAINDER 3)
    WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE pcs_outcomes_4 PARTITION OF pcs_outcomes FOR VALUES WITH (MODULUS 8, REMAINDER 4)
    WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE pcs_outcomes_5 PARTITION OF pcs_outcomes FOR VALUES WITH (MODULUS 8, REMAINDER 5)
    WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE pcs_outcomes_6 PARTITION OF pcs_outcomes FOR VALUES WITH (MODULUS 8, REMAINDER 6)
    WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE pcs_outcomes_7 PARTITION OF pcs_outcomes FOR VALUES WITH (MODULUS 8, REMAINDER 7)
    WITH (autovacuum_vacuum_scale_factor = 0.05);

INSERT INTO pcs_outcomes SELECT * FROM pcs_outcomes_whole;

-- After the rows: an index built at once costs a part of one that grew row by row.
ALTER TABLE pcs_outcomes ADD PRIMARY KEY (tenant, pcs_id);

-- What is stored in one batch shares its expiry and lies in one entry.
CREATE INDEX pcs_outcomes_by_expiry ON pcs_outcomes (expires_at_ms, tenant);

ALTER TABLE pcs_escalations
    ADD FOREIGN KEY (tenant, pcs_id) REFERENCES pcs_outcomes ON DELETE CASCADE;

DROP TABLE pcs_outcomes_whole;

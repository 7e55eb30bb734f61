"""The PCS contract as code: what agent and backend must agree on, bit for bit.

Everything here is pure — no network, no clock, no environment, no logging — except `pcs_core.wal`, which is the
one place that writes to disk durably.
"""

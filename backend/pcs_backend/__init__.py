"""The backend: receive → WAL → verify → dedup → effects. Read `pcs_backend.pipeline` first."""

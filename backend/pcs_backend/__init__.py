"""The backend: receive → WAL → verify → dedup → effects. Read `pcs_backend.pipeline` first."""

from importlib.metadata import version

__version__ = version("pcs-verification")

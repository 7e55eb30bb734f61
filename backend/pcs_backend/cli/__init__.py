"""The command `pcs-backend`. Exit codes: 0 done; 1 something failed while running; 2 usage or configuration."""

from pcs_backend.cli.root import main

__all__ = ["main"]

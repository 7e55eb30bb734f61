"""The command line: `pcs-agent`. Parses, calls `pcs_agent.app`, prints; decides nothing else."""

from pcs_agent.cli.group import main

__all__ = ["main"]

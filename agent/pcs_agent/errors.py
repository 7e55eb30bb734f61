"""The agent's errors. Input and configuration stop a command with exit code 2; none holds a secret or a payload."""

from __future__ import annotations


class AgentError(Exception):
    """Base of every error that `pcs_agent` raises on purpose."""


class InputError(AgentError):
    """Events that cannot be read: the message names the file (redacted), the row and the column, never the value."""


class ConfigError(AgentError):
    """A setting, key or option that cannot be used. The message names it and never holds a secret."""


class OutputError(AgentError):
    """Standard output takes nothing more: a closed pipe, a full disk. Exit code 1."""


class TransportError(AgentError):
    """No usable answer came back: refused, timed out, cut off. The message is the kind of failure, without the URL."""

"""Basic logins (RFC 7617), compared in time that tells nothing of user or password."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from pcs_backend.exchange import Reply
from pcs_backend.problems import Problem


class Login:
    """One user and password."""

    def __init__(self, user: str, password: str, realm: str) -> None:
        """Keep a digest of the login.

        Args:
            user: Without a colon.
            password: Its password.
            realm: What it is for, as clients are told.
        """
        self._digest = hashlib.sha256(f"{user}:{password}".encode()).digest()
        self._realm = realm

    def matches(self, header: str) -> bool:
        """Whether the value of an `Authorization` header is this login."""
        scheme, _, encoded = header.partition(" ")
        try:
            login = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            login = b""
        return hmac.compare_digest(hashlib.sha256(login).digest(), self._digest) and scheme.lower() == "basic"

    def refusal(self) -> Reply:
        """Return the answer to whoever did not give it."""
        return Problem.BAD_SIGNATURE.reply(
            f"Authorization: found none that is valid; allowed: the Basic login of the {self._realm}",
            headers={"WWW-Authenticate": f'Basic realm="{self._realm}"'},
        )

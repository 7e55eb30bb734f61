"""Signing whole requests (RFC 9421), so that nothing of a record can be changed on its way.

A proxy that changes host or path on the way breaks the signature: `SIGN_REQUESTS=false` turns it off.
"""

from __future__ import annotations

from yarl import URL

from pcs_agent.deliver.transport import batch_url
from pcs_core.message_signature import Message, normalise_authority, sign_message
from pcs_core.signing import Signer


class RequestSigner:
    """Signs the requests to one endpoint, batches included."""

    def __init__(self, message_key: Signer, key_id: str, endpoint: str) -> None:
        """Take the key and where requests go.

        Args:
            message_key: Derived from the record key.
            key_id: Id of the record key.
            endpoint: The full submit URL.
        """
        url = URL(endpoint)
        host = url.host_subcomponent or ""
        self._key = message_key
        self._key_id = key_id
        self._authority = normalise_authority(host if url.is_default_port() else f"{host}:{url.port}")
        self._path = url.raw_path
        self._batch_path = URL(batch_url(endpoint) or endpoint).raw_path

    def headers(self, body: bytes, at_s: float, *, batch: bool = False) -> dict[str, str]:
        """Return the headers that sign a POST of these bytes.

        Args:
            body: As it is sent, compressed if it is.
            at_s: Now by the backend's clock as far as it is known, seconds since 1970.
            batch: Whether it goes where batches go.
        """
        message = Message("POST", self._authority, self._batch_path if batch else self._path, body)
        return sign_message(message, self._key, self._key_id, int(at_s))

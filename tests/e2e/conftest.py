"""One backend configuration a store."""

from __future__ import annotations

import pytest

from processes import HMAC_KEY


@pytest.fixture(params=["memory", "redis", "postgres"])
def store_variables(request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables that choose a store, over a real, empty server."""
    match request.param:
        case "redis":
            return {"DEDUP_BACKEND": "redis", "REDIS_ADDR": request.getfixturevalue("redis_address")}
        case "postgres":
            return {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": request.getfixturevalue("postgres_dsn")}
        case _:
            return {"DEDUP_BACKEND": "memory"}


@pytest.fixture
def hmac_variables() -> dict[str, str]:
    """Signing by HMAC."""
    return {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_KEY}

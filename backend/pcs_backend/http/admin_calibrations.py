"""The calibration store over the administration socket: for the command line beside a process whose store is memory.

Each path is one call of `conformal.store.Calibrations`, its arguments in the body or the query, its result in the answer.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from pcs_backend.conformal.calibration import Labelled, Promotion
from pcs_backend.conformal.store import Calibrations
from pcs_backend.exchange import Reply
from pcs_backend.problems import Problem

CALIBRATION_PREFIX = "/calibration/"
LABELS_ADMIN_PATH = CALIBRATION_PREFIX + "labels"
ARTIFACTS_PATH = CALIBRATION_PREFIX + "artifacts"
FETCH_PATH = CALIBRATION_PREFIX + "artifacts/fetch"
PROMOTIONS_PATH = CALIBRATION_PREFIX + "promotions"

ALWAYS = "always"
"""In the query of `ARTIFACTS_PATH`: whether to keep beyond the bound too."""

_encode = msgspec.json.Encoder().encode


class CalibrationRoutes:
    """Answers what concerns calibration."""

    def __init__(self, calibrations: Calibrations) -> None:
        """Take the store of the serving process."""
        self._calibrations = calibrations

    async def answer(self, request: web.BaseRequest) -> Reply:
        """Answer one request whose path begins with `CALIBRATION_PREFIX`.

        Raises:
            UnavailableError: The store cannot do it now.
        """
        store, query = self._calibrations, request.query
        match request.method, request.path:
            case "GET", path if path == LABELS_ADMIN_PATH:
                labels = await store.list_labels(
                    query.get("tenant"), since_ms=int(query["since_ms"]), limit=int(query["limit"])
                )
                return Reply(200, _encode(labels))
            case "POST", path if path == LABELS_ADMIN_PATH:
                await store.put_labels(msgspec.json.decode(await request.read(), type=list[Labelled]))
                return Reply(200, b"{}")
            case "POST", path if path == ARTIFACTS_PATH:
                artifacts = msgspec.json.decode(await request.read(), type=list[bytes])
                await store.keep(artifacts, always=query.get(ALWAYS) == "true")
                return Reply(200, b"{}")
            case "POST", path if path == FETCH_PATH:
                digests = msgspec.json.decode(await request.read(), type=list[str])
                return Reply(200, _encode(await store.fetch(digests)))
            case "GET", path if path == PROMOTIONS_PATH:
                promotions = await store.list_promotions(query.get("scope"), int(query["limit"]))
                return Reply(200, _encode(promotions))
            case "POST", path if path == PROMOTIONS_PATH:
                promotion = msgspec.json.decode(await request.read(), type=Promotion)
                return Reply(200, _encode(await store.promote(promotion)))
            case _:
                return Problem.NOT_FOUND.reply("path: found an unknown one")

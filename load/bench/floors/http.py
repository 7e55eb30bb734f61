"""F1, `python -m bench.floors.http`: an `aiohttp.web.Application` that reads, `orjson.loads`, and answers a constant.

Loop, parser and options are those of the product's server. It prints `listening on URL` and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import sys

import orjson
import uvloop
from aiohttp import web

ANSWER = orjson.dumps(
    {
        "pcs_id": "0" * 64,
        "accepted": True,
        "escalated": False,
        "reasons": [],
        "recomputed": {"D_hat": 1.234567891, "regime": "mixed", "budget": 0.123456789},
    }
)
"""As long as an outcome."""


async def submit(request: web.Request) -> web.Response:
    """Answer the constant."""
    orjson.loads(await request.read())
    return web.Response(body=ANSWER, content_type="application/json")


async def serve() -> None:
    """Serve for ever."""
    application = web.Application(client_max_size=262_144)
    application.router.add_post("/v1/pcs/submit", submit)
    runner = web.AppRunner(
        application,
        access_log=None,
        keepalive_timeout=75.0,
        max_line_size=8_190,
        max_field_size=8_190,
        lingering_time=0,
        read_bufsize=64 * 1024,
        auto_decompress=False,
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1_024)
    await site.start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())

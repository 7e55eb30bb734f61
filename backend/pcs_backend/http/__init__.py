"""The HTTP edge: the only room that knows aiohttp. Below it are requests, replies and bytes."""

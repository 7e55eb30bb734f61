"""Where events come in: files and streams of rows, cut into windows. The door is `pcs_agent.events.source`."""

from pcs_agent.events.chunks import iter_chunked_windows
from pcs_agent.events.files import Found, find_files, names_many
from pcs_agent.events.inputs import FORMATS, STANDARD_INPUT, has_known_ending, kinds_of, open_sources
from pcs_agent.events.source import EventSource, Pieces
from pcs_agent.events.windows import Window, count_windows, iter_windows

__all__ = [
    "FORMATS",
    "STANDARD_INPUT",
    "EventSource",
    "Found",
    "Pieces",
    "Window",
    "count_windows",
    "find_files",
    "has_known_ending",
    "iter_chunked_windows",
    "iter_windows",
    "kinds_of",
    "names_many",
    "open_sources",
]

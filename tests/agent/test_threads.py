"""How many threads compute is set before anything that computes is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from pcs_agent.threads import ONE_THREAD

SCRIPT = """
import json, os, sys
import pcs_agent.__main__
early = "numpy" in sys.modules
sys.argv = ["pcs-agent", "--version"]
try:
    pcs_agent.__main__.main()
except SystemExit:
    print(json.dumps([early, "numpy" in sys.modules, dict(os.environ)]))
"""


def test_one_thread_computes_whatever_the_environment_says() -> None:
    environment = os.environ | dict.fromkeys(ONE_THREAD, "8")
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, timeout=60, check=True
    )
    early, late, found = json.loads(result.stdout.splitlines()[-1])
    assert (early, late) == (False, True)
    assert {name: found[name] for name in ONE_THREAD} == dict.fromkeys(ONE_THREAD, "1")

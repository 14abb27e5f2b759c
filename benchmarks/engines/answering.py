"""The side of a comparison's process that computes: it reads cases, and answers how long each took."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Prepare = Callable[[Mapping[str, Any]], Callable[[], Any]]
"""Makes a case ready; what it returns is timed, and returns an array or None."""


def answer(load: Callable[[], Prepare]) -> None:
    """Load, say that it is done, then time every case that comes in.

    A case is one line of JSON on standard input. Where it has `save`, the result goes to that file. What
    the code under test prints goes to standard error.

    Args:
        load: everything that happens between the process's start and its being ready.
    """
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    prepare = load()
    print(json.dumps({"ready": True}), file=replies)
    for line in sys.stdin:
        case = json.loads(line)
        run = prepare(case)
        wall, compute = time.perf_counter(), time.process_time()
        result = run()
        compute = time.process_time() - compute
        wall = time.perf_counter() - wall
        if "save" in case:
            np.save(case["save"], np.asarray(result))
        print(json.dumps({"wall": wall, "compute": compute}), file=replies)

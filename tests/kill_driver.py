"""A program that runs featx commands in children of its own and kills them at seeded random moments, until they come to an end.

Imports are paid for once: a child is a fork. Its argument is a JSON object: `args` of the command, `kills`, `seed`, `output`,
`reference` (a feature file that an uninterrupted run made, or none). Prints what happened as JSON.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

from featx import compact, extractor, parts, run, store  # noqa: F401 - what the commands need
from featx.cli import main

SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]


def start(args: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    os.setsid()
    sys.stdin.close()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    faulthandler.dump_traceback_later(150, exit=True)  # so that a run that hangs tells where
    parts.PART_SECONDS, parts.MERGE_PARTS = 0.0, 3  # many parts, and many merges of them
    try:
        main(args)
    except SystemExit as end:
        os._exit(end.code)
    os._exit(99)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def videos_of(path: Path) -> dict[str, list]:
    """key -> everything that plain h5py finds of it."""
    with h5py.File(path) as h5:
        columns = {name: h5[f"videos/{name}"][:] for name in h5["videos"]}
        layers = {name: h5[f"descriptors/{name}"][:] for name in h5.get("descriptors", {})}
        clips = {name: h5[f"clips/{name}"][:] for name in h5.get("clips", {})}
    found = {}
    for i, key in enumerate(columns["key"]):
        first, count = int(columns["first_clip"][i]), int(columns["num_clips"][i])
        rows = [table[first : first + count] for table in clips.values()]
        row = [column[i] for name, column in columns.items() if name != "first_clip"]
        found[key] = [*row, *(m[i] for m in layers.values()), *rows]
    return found


def same(one: list, two: list) -> bool:
    pairs = zip(one, two, strict=True)
    return all(np.array_equal(a, b, equal_nan=isinstance(a, np.ndarray)) or a != a for a, b in pairs)


def check(output: Path, reference: dict[str, list]) -> int:
    """Every file that has its final name must hold whole videos, equal to the reference to the bit; returns how many."""
    number = 0
    for path in [output, *sorted(store.parts_folder(output).glob("part-*.h5"))]:
        if path.exists():
            for key, values in videos_of(path).items():
                assert same(values, reference[key]), (str(path), key)
                number += 1
    return number


def drive(args: list[str], output: str, reference: str, kills: int, seed: int) -> dict:
    choose, happened, codes = random.Random(seed), Counter(), Counter()
    expected = videos_of(Path(reference))
    started = time.monotonic()
    code = wait(start(args))  # whole, to learn how long it takes
    whole = time.monotonic() - started
    assert code == 0 and check(Path(output), expected) == len(expected), code
    while kills:
        Path(output).unlink(missing_ok=True)
        happened["begun anew"] += 1
        while kills:  # the same command again and again
            child, number = start(args), choose.choice(SIGNALS)
            time.sleep(choose.uniform(0, whole))
            os.kill(child, number)
            if number != signal.SIGKILL and choose.random() < 0.5:
                os.kill(child, number)
            kills -= 1
            code = wait(child)
            codes[code] += 1
            assert code in (0, -number, 128 + number), (code, number, Path("said").read_text())
            happened["videos kept"] += check(Path(output), expected)
            if code == 0:
                break
    code = wait(start(args))
    assert code == 0 and check(Path(output), expected) == len(expected), code
    with h5py.File(output) as ours, h5py.File(reference) as theirs:
        made = [{n: v for n, v in file.attrs.items() if n != "featx_version"} for file in (ours, theirs)]
        assert all(np.array_equal(made[0][n], made[1][n]) for n in made[1]) and made[0].keys() == made[1].keys()
        assert list(ours["videos/key"]) == list(theirs["videos/key"])
    left = sorted(p.name for p in Path(output).parent.iterdir() if Path(output).name in p.name)
    return {"codes": codes, "happened": happened, "left": left, "seconds": whole}


if __name__ == "__main__":
    print(json.dumps(drive(**json.loads(sys.argv[1]))))

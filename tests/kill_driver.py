"""A program that runs featx commands in children of its own and kills them at seeded random moments, until they
come to an end.

Imports are paid for once: a child is a fork. Jobs come as JSON lines on stdin: `folder`, `args` of the command, `kills`,
`seed`, and `kind` with what `kill_outputs` needs for it; `full_bytes`, the largest file of a first run, which fails as on a
full disk; `published`, a card of small weights and the address of their file. A JSON line answers: what happened, or `error`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from kill_outputs import OUTPUTS
from small_weights import small_card

from featx import c3d_blobs, catalog, compact, extractor, parts, run  # noqa: F401 - what the commands need
from featx.catalog import Source
from featx.checkpoints import acquire  # noqa: F401
from featx.cli import main

SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]


def start(args: list[str], full_bytes: int | None, published: tuple[str, str] | None) -> int:
    child = os.fork()
    if child:
        return child
    os.setsid()
    sys.stdin.close()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    faulthandler.dump_traceback_later(150, exit=True)  # so that a run that hangs tells where
    parts.PART_SECONDS, parts.MERGE_PARTS = 0.0, 3  # many parts, and many merges of them
    sys.dont_write_bytecode = True  # Python's own files are not to be cut short
    if full_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (full_bytes, full_bytes))
    if published is not None:
        name, url = published
        card = small_card(name, (Source(url, "published.pickle", "a port", plain=True),))
        catalog.CHECKPOINTS = {card.name: card}
    try:
        main(args)
    except SystemExit as end:
        os._exit(end.code)
    except BaseException:
        traceback.print_exc()
    os._exit(99)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def said() -> str:
    return Path("said").read_text()


def drive(
    args: list[str],
    kills: int,
    seed: int,
    kind: str,
    full_bytes: int | None = None,
    published: tuple[str, str] | None = None,
    **place: str,
) -> dict:
    choose, happened, codes = random.Random(seed), Counter(), Counter()
    output = OUTPUTS[kind](**place)
    output.begin()
    if full_bytes is not None:
        code = wait(start(args, full_bytes, published))
        assert code == 2 and said().count("\n") == 1 and "cannot" in said() and "make room" in said(), said()
        output.check()
    started = time.monotonic()
    code = wait(start(args, None, published))  # whole, to learn how long it takes
    whole = time.monotonic() - started
    assert code == 0 and output.is_whole() and output.check(), (code, said())
    while kills:
        output.begin()
        happened["begun anew"] += 1
        while kills:  # the same command again and again
            child, number = start(args, None, published), choose.choice(SIGNALS)
            time.sleep(choose.uniform(0, whole))
            os.kill(child, number)
            if number != signal.SIGKILL and choose.random() < 0.5:
                os.kill(child, number)
            kills -= 1
            code = wait(child)
            codes[code] += 1
            assert code in (0, -number, 128 + number), (code, number, said())
            happened["kept"] += output.check()
            if code == 0 or (output.exit_code_again and output.is_whole()):
                break
    expected = output.exit_code_again if output.is_whole() else 0
    code = wait(start(args, None, published))
    assert code == expected and output.is_whole() and output.check(), (code, said())
    return {"codes": codes, "happened": happened, "left": output.left(), "seconds": whole}


def answer(job: dict) -> dict:
    os.chdir(job.pop("folder"))
    os.environ["FEATX_HOME"] = str(Path("home").absolute())
    try:
        return drive(**job)
    except Exception:
        return {"error": traceback.format_exc()}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing before main() is to answer it
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)

"""`featx doctor`: the machine, the versions, the engines, and what is broken, slow or missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from featx.cli.help import Command

if TYPE_CHECKING:
    from featx.doctor import Examination

__all__ = ["command"]


@click.command("doctor", cls=Command, epilog="Example: featx doctor")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(as_json: bool) -> int:
    """Tell what this machine has for featx, and what is broken, slow or missing.

    A made video is decoded and its features are extracted. It is meant for a bug report: paths are told from ~ on, and nothing
    of the environment but the settings of threads.

    Exit codes: 0 nothing is broken, 1 something is, 2 wrong usage.
    """
    from featx.doctor import examine

    examination = examine()
    click.echo(json.dumps(examination.as_dict(), indent=2) if as_json else "\n".join(_lines(examination)))
    return 0 if examination.is_good else 1


def _lines(examination: Examination) -> list[str]:
    facts = examination.as_dict()
    machine, compute, weights, test = (facts[name] for name in ("machine", "compute", "weights", "self_test"))
    limit = "" if machine["core_limit"] is None else f", a limit of {machine['core_limit']:g} cores' time"
    rows = [
        ("system", machine["system"]),
        ("processor", f"{machine['processor']} ({', '.join(machine['instructions']) or 'no AVX2'})"),
        ("cores", f"{machine['cores']} of {machine['cores_in_all']}{limit}"),
        ("memory", f"{_gigabytes(machine['free_memory_bytes'])} free of {_gigabytes(machine['memory_bytes'])}"),
        ("disk", ", ".join(f"{_gigabytes(n)} free for {name}" for name, n in machine["free_disk_bytes"].items())),
        *((name, version or "not installed") for name, version in facts["versions"].items()),
        ("engine", f"{compute['engine']} on {compute['device']}, {compute['threads']} threads"),
        *(("", f"{name}: {reason or 'available'}") for name, reason in compute["unavailable"].items()),
        ("settings", ", ".join(f"{name}={value}" for name, value in compute["settings"].items()) or "none of threads"),
        *(("GPU", _gpu(gpu)) for gpu in facts["gpus"]),
        *([("GPU", "none")] if not facts["gpus"] else []),
        ("weights", f"in {weights['folder']}: {len(weights['here'])} of {weights['known']} cards are here"),
        ("", ", ".join(weights["here"])),
        ("self-test", _test(test)),
    ]
    lines = [f"{word:<13}{text}" for word, text in rows]
    findings = [f"{found['level']:<13}{found['text']}: {found['remedy']}" for found in facts["findings"]]
    return [*lines, "", *(findings or ["nothing is broken, slow or missing"])]


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB"


def _gpu(gpu: dict) -> str:
    decodes = "decodes video" if gpu["decodes"] == "yes" else f"does not decode video: {gpu['decodes']}"
    return (
        f"{gpu['name']}, {_gigabytes(gpu['memory_bytes'])}, capability {gpu['capability']}, driver {gpu['driver']}, "
        f"CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}, {decodes}"
    )


def _test(test: dict) -> str:
    if test["extract"] != "good":
        return f"a made video: decoded {test['decode']}" + f", features {test['extract']}" * bool(test["extract"])
    note = f"; {test['note']}" if test["note"] else ""
    return f"a made video is decoded and gives its features, in {test['seconds']:.2f} s by {test['engine']}{note}"

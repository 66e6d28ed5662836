"""What this machine gives to a program: processor, cores, memory, disk. No name of a user or of a machine is among it."""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "free_disk_bytes", "look", "without_names"]

CGROUP = Path("/sys/fs/cgroup")
INSTRUCTIONS = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "amx_tile",
)  # those that are heard of, as Linux calls them


@dataclass(frozen=True)
class Machine:
    """What there is. `cores` may be used, of `cores_in_all`; `core_limit` is what a container may use of them in time, None
    without a limit. Memory is in bytes, 0 where the system does not tell; the limit of a container counts.
    """

    system: str
    processor: str
    instructions: tuple[str, ...]
    cores: int
    cores_in_all: int
    core_limit: float | None
    memory_bytes: int
    free_memory_bytes: int


def look(proc: Path = Path("/proc"), cgroup: Path = CGROUP) -> Machine:
    """This machine, from Linux's own files where it has them."""
    about_cpu = _lines(proc / "cpuinfo")
    memory = {words[0].rstrip(":"): words[1] for words in map(str.split, _lines(proc / "meminfo")) if len(words) > 1}
    total, free = (int(memory.get(name, 0)) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit = _first_number(cgroup / "memory.max")
    if limit is not None and limit < total:
        used = _first_number(cgroup / "memory.current") or 0
        total, free = int(limit), max(0, min(free, int(limit - used)))
    flags = _value(about_cpu, ("flags", "Features")).split()
    return Machine(
        system=platform.platform(),
        processor=_value(about_cpu, ("model name",)) or platform.processor() or platform.machine(),
        instructions=tuple(name for name in INSTRUCTIONS if name in flags),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cores_in_all=os.cpu_count() or 1,
        core_limit=_core_limit(cgroup),
        memory_bytes=total,
        free_memory_bytes=free,
    )


def free_disk_bytes(folder: Path) -> int:
    """What the disk of a folder, or of the nearest one above it that is there, has room for."""
    while not os.path.isdir(folder):
        folder = folder.parent
    return shutil.disk_usage(folder).free


def without_names(text: str) -> str:
    """A text with ~ for the home folder, and USER where a part of a path is the user's name."""
    home = os.path.expanduser("~")
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?=[/'\":\s,;)]|$)", "~", text)
    for name in {os.environ.get("USER", ""), os.environ.get("LOGNAME", ""), Path(home).name} - {"", "root"}:
        text = re.sub(rf"(?<=/){re.escape(name)}(?=[/'\":\s,;)]|$)", "USER", text)
    return text


def _core_limit(cgroup: Path) -> float | None:
    words = " ".join(_lines(cgroup / "cpu.max")).split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None


def _first_number(path: Path) -> float | None:
    lines = _lines(path)
    return float(lines[0]) if lines and lines[0].strip().isdigit() else None


def _value(lines: list[str], names: tuple[str, ...]) -> str:
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []

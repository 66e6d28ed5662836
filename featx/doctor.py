"""What a machine has for featx, and what is broken, slow or missing, for `featx doctor` and for a bug report.

    examination = examine()
    examination.findings        what is not as it should be, and what to do
    examination.as_dict()       all of it, without names of users

Nothing is written but a made video in a temporary folder, and nothing is fetched.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

import featx
from featx import hardware_decode, machine, store, video
from featx.catalog import CHECKPOINTS
from featx.checkpoints import cache
from featx.engine import ENGINES, GPU_ENGINES, choose_device, native, unavailable
from featx.engine.precision import PRECISIONS, unavailable_precision
from featx.errors import CheckpointError, FeatxError, UsageError, one_line

__all__ = ["Examination", "Finding", "engines", "examine"]

PACKAGES = ("torch", "av", "numpy", "h5py", "scikit-learn", "click", "tqdm")
EXTRAS = {"matplotlib": "plots"}  # package -> the extra that brings it
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")  # of nearly all videos
# what governs threads; no other variable of the environment is told
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "MKL_NUM_THREADS")
HOME_REMEDY = "set FEATX_HOME to a folder that you may write to"
LOW_DISK_BYTES, LOW_MEMORY_BYTES = 10**9, 2 * 2**30
NUM_FRAMES, SIDE, GREY = 16, 128, 100  # of the made video, which is grey


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be: `level` is "broken", "slow" or "missing"; `remedy` says what to do."""

    level: str
    text: str
    remedy: str


@dataclass(frozen=True)
class Examination:
    """What there is on this machine, in dicts of numbers and texts, and what is wrong."""

    machine: dict[str, object]
    versions: dict[str, str]
    compute: dict[str, object]
    gpus: tuple[dict[str, object], ...]
    weights: dict[str, object]
    self_test: dict[str, object]
    findings: tuple[Finding, ...]

    @property
    def is_good(self) -> bool:
        """Whether nothing is broken; what is slow or missing does not count."""
        return all(finding.level != "broken" for finding in self.findings)

    def as_dict(self) -> dict[str, object]:
        """All of it for JSON, with "good"; paths begin with ~ where they lie in the user's home."""
        facts = {"good": self.is_good, **dataclasses.asdict(self)}
        return json.loads(machine.without_names(json.dumps(facts, ensure_ascii=False)))


def engines() -> dict[str, object]:
    """The device that is taken if none is named, the engine that is taken there, and why others, and precisions, are not.

    On a GPU the engine is "auto": the first clips of a run decide.
    """
    device = choose_device("auto").type
    reasons = {name: unavailable(name, device) for name in (ENGINES if device == "cpu" else ("torch", *GPU_ENGINES))}
    return {
        "device": device,
        "engine": next(name for name, reason in reasons.items() if not reason) if device == "cpu" else "auto",
        "unavailable": reasons,
        "precisions": {name: unavailable_precision(name, device) for name in PRECISIONS if name != "auto"},
        "gpus": list(_gpus()),
    }


def examine() -> Examination:
    """Look at the machine, the libraries and the weights, and extract the features of a made video."""
    here = machine.look()
    versions = _versions()
    compute = engines()
    gpus = compute.pop("gpus")
    compute |= {"threads": torch.get_num_threads(), "settings": _thread_settings()}
    weights = _weights()
    disks = {name: machine.free_disk_bytes(folder) for name, folder in _folders().items()}
    test, broken = _self_test()
    if weights["problem"]:  # which is why
        broken = [dataclasses.replace(finding, remedy=HOME_REMEDY) for finding in broken]
    findings = [
        *broken,
        *_wrong_versions(versions),
        *_decoder_findings(),
        *_engine_findings(),
        *_gpu_findings(),
        *_thread_findings(here, compute["settings"]),
        *_room_findings(here, disks),
        *_weights_findings(weights),
        *_extra_findings(versions),
    ]
    return Examination(
        machine={**dataclasses.asdict(here), "free_disk_bytes": disks},
        versions=versions,
        compute=compute,
        gpus=tuple(gpus),
        weights=weights,
        self_test=test,
        findings=tuple(findings),
    )


# ------------------------------------------------------------------------------------------------------------- versions


def _versions() -> dict[str, str]:
    versions = {"featx": featx.__version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in PACKAGES}
    versions |= dict(video.libraries())
    versions |= {"hdf5": store.hdf5_version()}
    return versions | {name: _version(name) for name in EXTRAS}


def _version(package: str) -> str:
    if package == "torch":
        return torch.__version__  # with what it was built for
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _requirements() -> list[str]:
    """What featx asks for, as its metadata says: "torch<2.14,>=2.4"; nothing where it is not installed."""
    try:
        return [text for text in metadata.requires("featx") or () if ";" not in text]
    except metadata.PackageNotFoundError:
        return []


def _wrong_versions(versions: dict[str, str]) -> list[Finding]:
    findings = []
    for requirement in _requirements():
        name = re.match(r"[\w.-]+", requirement)[0]
        version = versions.get(name, "")
        for sign, bound in re.findall(r"(>=|<)\s*([\d.]+)", requirement):
            if version and (_numbers(version) < _numbers(bound)) == (sign == ">="):
                text = (
                    f"{name} {version} is here, but featx is tested with {requirement.removeprefix(name).strip(' ()')}"
                )
                findings.append(Finding("broken", text, f"pip install '{requirement}'"))
    return findings


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[\d.]*\d", version)[0].split("."))


def _extra_findings(versions: dict[str, str]) -> list[Finding]:
    return [
        Finding("missing", f"{name} is not installed, with which featx draws", f"pip install 'featx[{extra}]'")
        for name, extra in EXTRAS.items()
        if not versions[name]
    ]


# ------------------------------------------------------------------------------------------------------- compute, video


def _thread_settings() -> dict[str, str]:
    return {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}


def _engine_findings() -> list[Finding]:
    reason = native.why_not()
    if not reason:
        return []
    if "not built" in reason:
        compiler = next(filter(shutil.which, ("c++", "g++", "clang++")), None)
        first = "" if compiler else "install a C++ compiler (Debian: apt install g++), then "
        return [Finding("slow", reason, f"{first}pip install --force-reinstall --no-deps --no-cache-dir featx")]
    if "AVX2" in reason:
        return [Finding("slow", reason, "nothing: the results are the same, from plain torch")]
    return [Finding("broken", reason, "pip install --force-reinstall --no-deps --no-cache-dir featx")]


def _gpus() -> tuple[dict[str, object], ...]:
    if not torch.cuda.is_available():
        return ()
    driver = (_nvidia_smi("driver_version") or [""])[0]
    return tuple(
        {
            "device": f"cuda:{number}",
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "free_bytes": torch.cuda.mem_get_info(number)[0],
            "capability": f"{properties.major}.{properties.minor}",
            "driver": driver,
            "cuda": torch.version.cuda or "",
            "cudnn": str(torch.backends.cudnn.version() or ""),
            "decodes": hardware_decode.why_no_hardware(str(number)) or "yes",
        }
        for number, properties in enumerate(map(torch.cuda.get_device_properties, range(torch.cuda.device_count())))
    )


def _nvidia_smi(field: str) -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        command = [program, f"--query-gpu={field}", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def _gpu_findings() -> list[Finding]:
    names = [] if torch.cuda.is_available() else _nvidia_smi("name")
    if not names:
        return []
    built = f"for CUDA {torch.version.cuda}, which the driver does not run" if torch.version.cuda else "without CUDA"
    text = f"there is a GPU, {names[0].strip()}, but torch {torch.__version__} is built {built}"
    return [Finding("slow", text, "install a torch for the driver's CUDA: https://pytorch.org/get-started/locally")]


def _thread_findings(here: machine.Machine, settings: dict[str, str]) -> list[Finding]:
    findings = []
    usable = min(here.cores, max(1, int(here.core_limit or here.cores)))
    threads = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        given = settings.get(name, "").split(",")[0]
        if given.isdigit() and int(given) < usable:
            text = f"{name} is {given}, so that at most {given} of {usable} cores compute"
            findings.append(Finding("slow", text, f"unset {name}, or say --threads {usable}"))
    if threads > usable:
        text = f"{threads} threads compute, but this process has {usable} cores' time only, so that they wait for each other"
        findings.append(Finding("slow", text, f"--threads {usable}"))
    spins = settings.get("OMP_WAIT_POLICY", "").lower() == "active"
    spins |= any(settings.get(name, "0") != "0" for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME"))
    if spins:
        text = "threads that wait are told to spin, which takes the cores from decoding"
        findings.append(Finding("slow", text, "unset OMP_WAIT_POLICY, GOMP_SPINCOUNT and KMP_BLOCKTIME"))
    return findings


def _decoder_findings() -> list[Finding]:
    missing = video.missing_decoders(DECODERS)
    if not missing:
        return []
    text = f"libav has no decoder for {', '.join(missing)}, so that such videos fail"
    return [Finding("missing", text, "pip install --force-reinstall --only-binary av av")]


def _self_test() -> tuple[dict[str, object], list[Finding]]:
    """Decode a made video, whose pixels are known, and extract its features with the embedded checkpoint."""
    test: dict[str, object] = {"decode": "", "extract": "", "seconds": 0.0}
    again = "pip install --force-reinstall featx; if it stays so, report it with all of this"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.y4m"
        _make_video(path)
        try:
            frames = [frame.pixels for frame in video.read_frames(path)]
            wrong = len(frames) != NUM_FRAMES or any(np.abs(frame.astype(int) - GREY).max() > 1 for frame in frames)
            if wrong:
                raise FeatxError(f"{len(frames)} frames are decoded, of other pixels than were written")
            test["decode"] = "good"
        except Exception as error:
            test["decode"] = one_line(f"{type(error).__name__}: {error}")
            return test, [Finding("broken", f"a made video cannot be decoded ({test['decode']})", again)]
        try:
            from featx.extractor import Extractor

            with Extractor(device="cpu", batch_size=1) as extractor:
                began = time.perf_counter()
                vectors = extractor.extract(path).descriptors.values()
                test["seconds"] = round(time.perf_counter() - began, 3)
                test["engine"], test["note"] = extractor.provenance.engine, extractor.engine.note
            if not all(abs(np.linalg.norm(vector) - 1) < 1e-4 for vector in vectors):
                raise FeatxError("the descriptor has not unit length")
            test["extract"] = "good"
        except Exception as error:
            test["extract"] = one_line(f"{type(error).__name__}: {error}")
            return test, [Finding("broken", f"a made video gives no features ({test['extract']})", again)]
    return test, []


def _make_video(path: Path) -> None:
    """NUM_FRAMES grey pictures as YUV4MPEG2, whose form is a line of text before each."""
    luma = round(16 + GREY * 219 / 255)
    picture = bytes([luma]) * SIDE**2 + bytes([128]) * (SIDE**2 // 2)
    header = f"YUV4MPEG2 W{SIDE} H{SIDE} F25:1 Ip A1:1 C420jpeg\n".encode()
    path.write_bytes(header + (b"FRAME\n" + picture) * NUM_FRAMES)


# ------------------------------------------------------------------------------------------------------ weights and room


def _folders() -> dict[str, Path]:
    return {"cache": _cache()[0], "temporary files": Path(tempfile.gettempdir())}


def _cache() -> tuple[Path, str]:
    """The cache folder, and why there is none, where its name leads nowhere."""
    try:
        return cache.cache_folder(), ""
    except UsageError as error:
        return Path(os.environ.get("FEATX_HOME", "~")), str(error).partition("; ")[0]


def _weights() -> dict[str, object]:
    """Where weights are kept, and which are there; their bytes are not read."""
    here, damaged, (folder, problem) = [], {}, _cache()
    problem = problem or _problem_with(folder)
    if problem:
        here = [card.name for card in CHECKPOINTS.values() if card.embedded]
    for card in CHECKPOINTS.values() if not problem else ():
        try:
            if card.embedded or cache.find(card):
                here.append(card.name)
        except CheckpointError as error:
            damaged[card.name] = str(error)
    return {"folder": str(folder), "problem": problem, "here": here, "known": len(CHECKPOINTS), "damaged": damaged}


def _problem_with(folder: Path) -> str:
    """Why no weights can be found in a folder, which need not exist yet; "" where they can."""
    try:
        os.listdir(folder)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror.lower()
    return ""


def _why_not_writable(folder: Path) -> str:
    while not os.path.lexists(folder):
        folder = folder.parent
    return "" if os.access(folder, os.W_OK) else "it cannot be written to"


def _weights_findings(weights: dict) -> list[Finding]:
    findings = [
        Finding("broken", f"the stored weights {name} cannot be used: {reason}", f"featx weights get {name}")
        for name, reason in weights["damaged"].items()
    ]
    problem = weights["problem"] or _why_not_writable(Path(weights["folder"]))
    if problem:
        text = f"weights cannot be stored in {weights['folder']}: {problem}"
        findings.append(Finding("missing", text, HOME_REMEDY))
    return findings


def _room_findings(here: machine.Machine, disks: dict[str, int]) -> list[Finding]:
    findings = [
        Finding("missing", f"the disk of {name} has {free / 1e6:,.0f} MB free", "make room on it")
        for name, free in disks.items()
        if free < LOW_DISK_BYTES
    ]
    if 0 < here.free_memory_bytes < LOW_MEMORY_BYTES:
        text = f"{here.free_memory_bytes / 2**20:,.0f} MB of memory are free, which is little for a deep network"
        findings.append(Finding("slow", text, "take a smaller --batch-size, or end other programs"))
    return findings

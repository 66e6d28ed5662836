"""Lists of videos: a name a line, and how the names find the keys of a feature file.

A listed name is compared with a key as it is written and without its suffix (``Archery/v_x.avi`` is the key
``Archery/v_x``). A name that is no key as a whole fits the only key that ends like it, or that it ends like (``v_x``,
``/data/Archery/v_x.avi``). Where folders are named otherwise throughout, so that no name with a folder fits in these ways,
the base name ``v_x`` is enough, if it is unique and has a letter: ``6`` of another folder is another video.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from featx.errors import UsageError

__all__ = ["few", "match_names", "read_hashed_lines", "read_lines", "read_text", "split_label"]

# a number is a label only behind a file suffix: "take 2" is a name, "Archery/v_x.avi 3" a name and its label
_LETTER = re.compile(r"[^\W\d_]")
_LABELLED = re.compile(r"(?P<name>.*\.\w{2,5})\s+(?P<label>\d+)")


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, stripped, without empty ones. Raises UsageError if it cannot be read or is empty."""
    return read_hashed_lines(path)[0]


def read_hashed_lines(path: str | Path) -> tuple[list[str], str]:
    """`read_lines`, and the SHA-256 of the bytes that they were read from, which a pipe gives once."""
    try:
        content = Path(path).read_bytes()
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{path}: cannot be read as a list, a name a line ({reason}); name a text file") from None
    lines = [line for line in lines if line]
    if not lines:
        raise UsageError(f"{path}: the list is empty; write a name a line")
    return lines, hashlib.sha256(content).hexdigest()


def read_text(list_file: str | Path) -> str:
    """The text of a list of paths; bytes that are not UTF-8 are kept as Python keeps those of file names.

    Raises UsageError for a file that cannot be read, and for one that is no text.
    """
    try:
        text = Path(list_file).read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except OSError as error:
        raise UsageError(f"cannot read the list {list_file}: {error.strerror}; name a text file") from error
    if "\0" in text:
        raise UsageError(f"the list {list_file} is not a text file; name one, with a line a video")
    return text


def split_label(line: str) -> tuple[str, int | None]:
    """Take ``Archery/v_x.avi 3`` apart into name and label; a line without a label is all name."""
    match = _LABELLED.fullmatch(line)
    return (match["name"], int(match["label"])) if match else (line, None)


def few(names: Iterable[str], count: int = 3) -> str:
    """The first `count` names for a message, with dots where there are more."""
    names = list(names)
    return ", ".join(names[:count]) + (" …" if len(names) > count else "")


def match_names(names: Sequence[str], keys: Sequence[str], by_base_name: bool = True) -> dict[str, int]:
    """Find the key of each listed name; returns name -> index into `keys`, without the names that match none.

    Without `by_base_name` the folders must agree as far as both have them. Raises UsageError, naming both, where a name fits
    two keys, or two names fit one key.
    """
    index = {key: i for i, key in enumerate(keys)}
    found: dict[str, int] = {}
    for name in names:
        whole = next((index[spelling] for spelling in _spellings(name) if spelling in index), None)
        if whole is not None:
            found[name] = whole

    taken = set(found.values())
    by_base: dict[str, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        if i not in taken:  # a key that is named as a whole is no candidate for another name
            by_base[posixpath.basename(key)].append(i)
    elsewhere: dict[str, list[int]] = {}  # keys of the same base name in other folders
    for name in names:
        if name not in found:
            candidates = next((by_base[b] for b in map(posixpath.basename, _spellings(name)) if b in by_base), [])
            agreeing = [i for i in candidates if _folders_agree(name, keys[i])]
            if agreeing:
                found[name] = _only(name, agreeing, keys)
            elif candidates and _LETTER.search(posixpath.basename(keys[candidates[0]])):
                elsewhere[name] = candidates
    if by_base_name and not any("/" in name for name in found):
        found |= {name: _only(name, candidates, keys) for name, candidates in elsewhere.items()}

    name_of: dict[int, str] = {}
    for name, i in found.items():
        if i in name_of:
            raise UsageError(
                f"'{name_of[i]}' and '{name}' are both listed and both fit the key '{keys[i]}' only; "
                "extract with keys that keep the folders, or list the video once"
            )
        name_of[i] = name
    return found


def _spellings(name: str) -> tuple[str, str]:
    """As written, and without the suffix of a file, which has a letter: "take 1.5" has none."""
    name = posixpath.normpath(name)
    stem, suffix = posixpath.splitext(name)
    return name, stem if _LETTER.search(suffix) else name


def _folders_agree(name: str, key: str) -> bool:
    return any(f"/{s}".endswith(f"/{key}") or key.endswith(f"/{s}") for s in _spellings(name))


def _only(name: str, candidates: list[int], keys: Sequence[str]) -> int:
    """The one of the keys that a name fits."""
    if len(candidates) > 1:
        first, second = candidates[:2]
        raise UsageError(
            f"listed '{name}' fits both '{keys[first]}' and '{keys[second]}' by its base name; "
            "list it as the key is written, with its folder"
        )
    return candidates[0]

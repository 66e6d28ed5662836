"""The names and shapes of every tensor in the published files, expanded from the tables in key_tables/*.txt.

A table has one line a tensor, or a Caffe layer with its blobs; what repeats is a block, named once:

    block NAME PARAMETERS ...
        *.weight  C,3,7,7           a tensor: "*" is the name that the block is called with; no sizes: scalar
        conv*     Convolution C,3   a Caffe layer: its type, and the shape of each blob
        *.bn      norm C            every line of the block "norm", with "*.bn" for its "*" and C for its first parameter
        *.{1-6}   layer 64+32       six times, with 64, 96 ... for the parameter
        stem                        a block without a name of its own
    table FILE
        card NAME                   or: architecture NAME CLASSES, where there are no weights
        wrapper epoch state_dict    what the file holds around the tensors (a plain table of them without this line)
        prefix module.              before every name
        caffe A                     the dialect, which makes the lines layers

Nothing of featx is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).with_suffix("")

Shape = tuple[int, ...]


@dataclass
class KeyTable:
    """What one published file holds, in its order. `tensors` are those of a PyTorch file, `layers` those of a Caffe file:
    (name, type, shapes of its blobs), only layers that have any."""

    file: str
    card: str = ""
    architecture: str = ""
    classes: int = 0
    wrapper: list[str] = field(default_factory=list)
    prefix: str = ""
    caffe: str = ""
    tensors: dict[str, Shape] = field(default_factory=dict)
    layers: list[tuple[str, str, list[Shape]]] = field(default_factory=list)


def read_tables(path: Path) -> list[KeyTable]:
    """Every table of a file, expanded."""
    blocks: dict[str, tuple[list[str], list[list[str]]]] = {}
    tables: list[tuple[KeyTable, list[list[str]]]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        words = text.split("#")[0].split()
        if not words:
            continue
        if not text.startswith(" "):
            lines: list[list[str]] = []
            if words[0] == "block":
                blocks[words[1]] = (words[2:], lines)
            else:
                tables.append((KeyTable(words[1]), lines))
        else:
            lines.append(words)
    return [_fill(table, lines, blocks) for table, lines in tables]


def _fill(table: KeyTable, lines: list[list[str]], blocks) -> KeyTable:
    body = []
    for words in lines:
        if words[0] in ("card", "prefix", "caffe"):
            setattr(table, words[0], words[1])
        elif words[0] == "architecture":
            table.architecture, table.classes = words[1], int(words[2])
        elif words[0] == "wrapper":
            table.wrapper = words[1:]
        else:
            body.append(words)
    for name, *values in _expand("", body, {}, blocks):
        name = table.prefix + name
        if table.caffe:
            table.layers.append((name, values[0], [_shape(value) for value in values[1:]]))
        else:
            assert name not in table.tensors, f"{table.file}: {name} comes twice"
            table.tensors[name] = _shape(*values)
    return table


def _expand(prefix: str, lines: list[list[str]], values: dict[str, str], blocks) -> Iterator[list[str]]:
    """Yield the words of every tensor or layer, the name complete and the sizes numbers."""
    for words in lines:
        words = [_substitute(word, values) for word in words]
        if words[0] in blocks:
            words = ["*", *words]
        for i, name in enumerate(_count(words[0])):
            name = name.replace("*", prefix)
            if words[1] not in blocks:
                yield [name, *words[1:]]
                continue
            parameters, inner = blocks[words[1]]
            arguments = [_step(word, i) for word in words[2:]]
            yield from _expand(name, inner, dict(zip(parameters, arguments, strict=True)), blocks)


def _substitute(word: str, values: dict[str, str]) -> str:
    """Put values for the parameters in "*.{1-LAST}", "O,I,1,1" and "C"."""
    return re.sub(r"[A-Z][A-Z0-9]*(?![a-z])", lambda match: values.get(match[0], match[0]), word)


def _count(name: str) -> list[str]:
    """ "layer{1-3}" to layer1, layer2, layer3."""
    match = re.search(r"\{(\d+)-(\d+)\}", name)
    if not match:
        return [name]
    return [name.replace(match[0], str(i)) for i in range(int(match[1]), int(match[2]) + 1)]


def _step(word: str, i: int) -> str:
    """ "64+32" in the i-th repetition."""
    first, plus, step = word.partition("+")
    return str(int(first) + i * int(step)) if plus else word


def _shape(text: str) -> Shape:
    return () if text == "scalar" else tuple(int(size) for size in text.split(","))


KEY_TABLES = {table.file: table for path in sorted(FOLDER.glob("*.txt")) for table in read_tables(path)}

"""Objects in egocentric video, clip by clip: 42 classes, train and test videos as the data set's authors divide them.

A clip's label is the most frequent label of its frames (of equally frequent ones that which comes first). A clip in which it
covers fewer than 8 frames shows no object: it neither trains nor tests. Source: the C3D paper, section 6.

The folder of lists holds ``train.txt`` and ``test.txt``, a video a line, and ``labels.csv``, of ``video,frame,label`` or, for
runs of frames, ``video,start_frame,end_frame,label``: frames are counted from 0, as filmed; an end is the first frame after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from featx.errors import UsageError
from featx.evaluation.protocol import Entry, Protocol, Request, Split, choose_numbers, clip_name
from featx.evaluation.tables import read_table
from featx.lists import few, match_names, read_lines

__all__ = ["clip_label", "load"]

NUM_CLASSES = 42
MIN_FRAMES = 8  # of one label, in a clip of 16
FORMS = (("video", "frame", "label"), ("video", "start_frame", "end_frame", "label"))


def load(request: Request) -> Protocol:
    """Read the lists, and label the clips of the videos listed; a video that the feature file lacks is listed as one row."""
    folder = request.list_folder("objects", "labels.csv, train.txt and test.txt")
    choose_numbers((1,), request.numbers)
    if request.clip_table is None:
        raise UsageError("objects is evaluated clip by clip; extract with '--save clips' or '--save both'")
    if request.fps:
        raise UsageError(
            f"frame labels count frames as filmed, but the features were made at {request.fps:g} frames/s; extract with --fps 0"
        )
    frame_labels = _read_frame_labels(folder / "labels.csv")
    labelled = tuple(frame_labels)
    classes = sorted({label for labels in frame_labels.values() for label in labels.values()})
    if len(classes) != NUM_CLASSES:
        raise UsageError(f"{folder / 'labels.csv'} has {len(classes)} classes, but the data set has {NUM_CLASSES}")
    sides, unlabelled, num_dropped = [], [], 0
    for name in ("train.txt", "test.txt"):
        videos = list(dict.fromkeys(read_lines(folder / name)))
        found = match_names(videos, request.keys)
        labels_of = match_names(videos, labelled)
        entries = []
        for video in videos:
            if video not in labels_of:
                unlabelled.append(video)
            elif video not in found:
                entries.append(Entry(video, classes[0]))  # no row of the file: reported by its name, and left out
            else:
                key = request.keys[found[video]]
                labels = frame_labels[labelled[labels_of[video]]]
                table = request.clip_table(key)
                for start, end in zip(table.start_frame.tolist(), table.end_frame.tolist(), strict=True):
                    label = clip_label(labels, start, end)
                    if label is None:
                        num_dropped += 1
                    else:
                        entries.append(Entry(clip_name(key, start), label))
        sides.append(tuple(entries))
    if unlabelled:
        raise UsageError(
            f"{folder / 'labels.csv'} labels no frame of {len(unlabelled)} listed videos: {few(unlabelled)}; complete it"
        )
    note = f"clips without a label for {MIN_FRAMES} frames, left out: {num_dropped}"
    return Protocol(tuple(classes), (Split("test", *sides),), (note,))


def clip_label(labels: Mapping[int, str], start_frame: int, end_frame: int) -> str | None:
    """The label of the frames `start_frame` to `end_frame` - 1, None where none covers MIN_FRAMES of them."""
    counts = Counter(labels[frame] for frame in range(start_frame, end_frame) if frame in labels)
    label, count = max(counts.items(), key=lambda item: item[1], default=(None, 0))  # the first of the largest
    return label if count >= MIN_FRAMES else None


def _read_frame_labels(path: Path) -> dict[str, dict[int, str]]:
    """video -> frame -> label."""
    labels: dict[str, dict[int, str]] = {}
    for row in read_table(path, FORMS[0], other_forms=FORMS[1:]):
        try:
            first = int(row.get("frame", row.get("start_frame")))
            end = int(row["end_frame"]) if "end_frame" in row else first + 1
            if not 0 <= first < end:
                raise ValueError
        except ValueError:
            raise UsageError(
                f"{path}: '{','.join(row.values())}' names no frames, counted from 0, end after start"
            ) from None
        own = labels.setdefault(row["video"], {})
        for frame in range(first, end):
            if own.setdefault(frame, row["label"]) != row["label"]:
                raise UsageError(
                    f"{path}: frame {frame} of '{row['video']}' is '{own[frame]}' and '{row['label']}'; give it one label"
                )
    return labels

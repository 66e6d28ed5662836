"""Memory does not grow with the length of a video: measured in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import write_video

PROGRAM = """
import resource, sys
from featx.run import extract_to
summary = extract_to(sys.argv[1], sys.argv[2], stride=int(sys.argv[3]), save="both", layers=["res5b"])
print(summary.num_frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_megabytes(folder, num_frames, stride):
    video = write_video(folder / f"{num_frames}.mp4", num_frames, size=(120, 160))
    arguments = [sys.executable, "-c", PROGRAM, str(video), str(folder / f"{num_frames}.h5"), str(stride)]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
    assert int(output[0]) == num_frames
    return int(output[1])


@pytest.mark.long
def test_an_hour_needs_no_more_than_a_minute(tmp_path):
    minute, hour = peak_megabytes(tmp_path, 60 * 25, 8), peak_megabytes(tmp_path, 60 * 60 * 25, 400)
    assert hour < minute + 32

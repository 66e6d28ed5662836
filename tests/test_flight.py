"""engine/flight.py: the results are those of batches one by one, however late the device does its work."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from lazy_device import EagerStreams, LazyStreams

from featx.engine.flight import Done, Flight

SHAPE = (3, 2, 4, 4, 3)  # N, T, h, w, 3
DIMS = {"wide": 2 * 4 * 4 * 3, "sum": 1}


def forward(clips):
    values = clips.to(torch.float64)  # results are float32 whatever the network gives
    return {"wide": values.permute(0, 4, 1, 2, 3), "sum": values.flatten(1).sum(1, keepdim=True)}


def batches(num=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [3, 3, 1, 3, 2, 3, 3, 1, 2][:num]
    return [
        [torch.randint(1, 256, SHAPE[1:], generator=generator, dtype=torch.uint8) for _ in range(size)]
        for size in sizes
    ]


def expected(clips):
    return {layer: x.flatten(1).float().numpy() for layer, x in forward(torch.stack(clips)).items()}


def assert_right(found, clips):
    for layer, values in expected(clips).items():
        assert found[layer].dtype == np.float32 and np.array_equal(found[layer], values), layer


@pytest.mark.parametrize("streams", [LazyStreams, EagerStreams])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("max_in_flight", [0, 2, 20])
def test_every_batch_comes_back_as_it_went_in(streams, depth, max_in_flight):
    """Also where more are submitted than there is memory for, and the clips given are changed at once."""
    flight, waiting, num_right = Flight(streams(), forward, SHAPE, DIMS, depth), deque(), 0
    for clips in batches():
        kept = [clip.clone() for clip in clips]
        waiting.append((kept, flight.submit(clips)))
        for clip in clips:
            clip.zero_()
        while len(waiting) > max_in_flight:
            kept, handle = waiting.popleft()
            assert_right(handle.result(), kept)
            num_right += 1
    for kept, handle in waiting:
        assert_right(handle.result(), kept)
        assert handle.done()
        num_right += 1
    assert num_right == 9


def test_nothing_is_waited_for_until_memory_is_used_up():
    streams = LazyStreams()
    flight = Flight(streams, forward, SHAPE, DIMS, depth=3)
    handles = [flight.submit(clips) for clips in batches(3)]
    assert streams.log == [] and not any(handle.done() for handle in handles)
    flight.submit(batches(1)[0])
    assert [handle.done() for handle in handles] == [True, False, False]  # whose memory the fourth needs
    assert streams.log == ["copy", "compute", "results"]


def test_a_batch_that_is_not_full_is_filled_up_with_zeros():
    seen = []
    flight = Flight(EagerStreams(), lambda clips: seen.append(clips.clone()) or forward(clips), SHAPE, DIMS)
    flight.submit(batches(1)[0]).result()
    (one,) = batches()[2]
    flight.submit([one]).result()
    assert torch.equal(seen[1][0], one) and not seen[1][1:].any()


def test_results_stay_when_memory_is_used_again():
    flight = Flight(LazyStreams(), forward, SHAPE, DIMS, depth=1)
    given = batches(4)
    results = [flight.submit(clips).result() for clips in given]
    for found, clips in zip(results, given, strict=True):
        assert_right(found, clips)


def test_the_devices_own_clock_times_copy_and_forward():
    handle = Flight(LazyStreams(), forward, SHAPE, DIMS).submit(batches(1)[0])
    handle.result()
    assert (handle.copy_seconds, handle.forward_seconds) == (1, 1)
    assert handle.taken.query()


def test_draining_fetches_all():
    flight, given = Flight(LazyStreams(), forward, SHAPE, DIMS, depth=3), batches(3)
    handles = [flight.submit(clips) for clips in given]
    flight.drain()
    for handle, clips in zip(handles, given, strict=True):
        assert handle.done()
        assert_right(handle.result(), clips)


def test_draining_waits_for_what_was_begun_of_a_batch_that_failed():
    """Its memory is given back next, which a copy may still write to."""
    streams = LazyStreams()

    class Full(Exception):
        pass

    def run(lane, work, run=streams.run):
        if lane == "compute":
            raise Full
        run(lane, work)

    flight = Flight(streams, forward, SHAPE, DIMS)
    streams.run = run
    with pytest.raises(Full):
        flight.submit(batches(1)[0])
    assert streams.log == []
    flight.drain()
    assert streams.log == ["copy"]


def test_a_handle_whose_results_are_fetched_keeps_no_memory_of_the_flight():
    flight = Flight(LazyStreams(), forward, SHAPE, DIMS)
    handle = flight.submit(batches(1)[0])
    assert handle._slot is flight._slots[0]
    handle.result()
    assert handle._slot is None and handle.result()["sum"].shape == (3, 1)


class OnDevice:
    """Memory of a device, as far as a flight looks."""

    device = torch.device("cuda")

    def __init__(self, values):
        self.values = values


def test_clips_on_the_device_are_timed_in_one_lane():
    """Marks of two lanes have no order, and a time between them may be asked for before there is one."""
    streams, waited = LazyStreams(), []
    flight = Flight(streams, forward, SHAPE, DIMS)
    for slot in flight._slots:
        slot.device = OnDevice(slot.device)
    flight._gather = lambda slot, clips: setattr(slot, "device", torch.stack([clip.values for clip in clips]))
    streams.wait = lambda lane, mark, wait=streams.wait: waited.append((lane, mark)) or wait(lane, mark)
    clips, ready = batches(1)[0], streams.mark("copy")
    handle = flight.submit([OnDevice(clip) for clip in clips], [ready, ready, ready])
    assert waited[0] == ("compute", ready) and len(waited) == 2  # once, and of the lane of results for the numbers
    assert {handle._marks[name].lane for name in ("copy begun", "copied", "taken", "begun", "computed")} == {"compute"}
    assert_right(handle.result(), clips)
    assert (handle.copy_seconds, handle.forward_seconds) == (1, 1)


def test_what_is_done_at_once_is_a_handle_too():
    done = Done({"sum": np.zeros((1, 1))})
    assert done.done() and list(done.result()) == ["sum"] and done.taken is None
    assert done.copy_seconds == done.forward_seconds == 0

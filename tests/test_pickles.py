"""PyTorch's files against damage and malice: what torch itself would take, run into or never come back from."""

from __future__ import annotations

import collections
import io
import pickle
import random
import re

import pytest
import torch

from featx.checkpoints.files import read_tensors
from featx.errors import CheckpointError


def refused(path, message):
    with pytest.raises(CheckpointError, match=re.escape(message)) as error:
        read_tensors(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_a_flipped_byte_of_a_zip_is_noticed(tmp_path):
    """torch.load does not look at a zip's checksums."""
    path = tmp_path / "w.pth"
    weight = torch.arange(5000.0)
    torch.save({"weight": weight}, path)
    data = bytearray(path.read_bytes())
    place = data.index(weight.numpy().tobytes()) + 10_000
    assert torch.equal(read_tensors(path)["weight"], weight)
    data[place] ^= 4
    path.write_bytes(data)
    assert not torch.equal(torch.load(path, weights_only=True)["weight"], weight)
    refused(path, "are refused (Bad CRC-32 for file")


def test_another_protocol_is_told_from_code(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "w.pth", pickle_protocol=4)
    refused(
        tmp_path / "w.pth",
        "(another pickle protocol than torch.save's own); save the model's state_dict() again without",
    )


def test_another_protocol_of_a_legacy_file_is_told_from_code(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"weight": torch.ones(2)}, path, pickle_protocol=4, _use_new_zipfile_serialization=False)
    refused(path, "(another pickle protocol than torch.save's own); save the model's state_dict() again without")


def test_a_large_tuple_beside_the_weights_is_no_damage(tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(2)}, "classes": tuple(range(20_000))}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "its tuples hold more than 10,000 things); save the model's state_dict() instead")


TUPLES = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60  # each holds the one before it twice


@pytest.mark.parametrize(
    "body",
    [
        b"}" + TUPLES + b"h\x00K\x01s.",  # as the key of SETITEM
        TUPLES + b"}(h\x00K\x01u.",  # of SETITEMS
        TUPLES + b"c__builtin__\nset\n]h\x00a\x85R.",  # in a list that becomes a set
        b")q\x00" + b"h\x00h\x00h\x00\x87\x85q\x00" * 40 + b"}h\x00K\x01s.",
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_tuples_that_would_be_hashed_for_ever(form, body, tmp_path):
    path = tmp_path / "w.pth"
    if form == "zip":
        with io.BytesIO() as buffer:
            writer = torch._C.PyTorchFileWriter(buffer)
            writer.write_record("data.pkl", b"\x80\x02" + body, len(body) + 2)
            writer.write_end_of_file()
            path.write_bytes(buffer.getvalue())
    else:
        path.write_bytes(b"\x80\x02" + body)
    refused(path, "its tuples hold more than 10,000 things")


def test_what_training_programs_save_beside_the_weights_is_no_such_tuple(tmp_path):
    content = {
        "state_dict": {"w": torch.ones(2, 3)},
        "python_rng": random.getstate(),
        "steps": [(i, i + 1, (0.5, "x")) for i in range(500)],
        "history": tuple(range(5000)),
        ("a", ("b", 1)): torch.Size([1, 2]),
    }
    for zip_form in (True, False):
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zip_form)
        assert torch.equal(read_tensors(tmp_path / "w.pth")["w"], torch.ones(2, 3))
    torch.save({("a", 1): torch.ones(1)}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "hold a tuple, where a tuple is a Tensor, but only named tensors")


class Table(collections.OrderedDict):
    """An OrderedDict that pickles with a state of the file's choice."""

    def __reduce__(self):
        return collections.OrderedDict, (), self.state, None, iter(self.items())


@pytest.mark.parametrize("names", [("items",), ("get", "items", "keys", "__iter__")])
def test_a_table_with_methods_from_the_file(names, tmp_path):
    table = Table(weight=torch.ones(2))
    table.state = dict.fromkeys(names, 5)
    for content in (table, {"state_dict": table}):
        torch.save(content, tmp_path / "w.pth")
        assert torch.equal(read_tensors(tmp_path / "w.pth")["weight"], torch.ones(2))


def test_a_tensor_with_attributes_from_the_file(tmp_path):
    tensor = torch.ones(2)
    for name in ("detach", "is_floating_point", "float", "as_subclass"):
        setattr(tensor, name, 5)
    torch.save({"weight": tensor}, tmp_path / "w.pth")
    assert torch.load(tmp_path / "w.pth", weights_only=True)["weight"].detach == 5
    weight = read_tensors(tmp_path / "w.pth")["weight"]
    assert torch.equal(weight.detach(), torch.ones(2)) and weight.is_floating_point()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_tensors_of_other_kinds(tmp_path):
    torch.save({"weight": torch._neg_view(torch.ones(2))}, tmp_path / "w.pth")
    assert read_tensors(tmp_path / "w.pth")["weight"].numpy().tolist() == [-1, -1]
    torch.save({"weight": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "are refused (")


def test_a_pickle_that_is_no_torch_file(tmp_path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    refused(tmp_path / "w.pth", "are refused (")

"""Caffe's binary files, written straight from the wire layout, and the layers of the published ones.

Nothing of featx is used. A layer is (name, type, blobs); blobs are shapes in the tables and arrays in files.
"""

from __future__ import annotations

import math

import numpy as np

# ------------------------------------------------------------------------------------------------- wire format


def varint(value: int) -> bytes:
    value %= 1 << 64  # negative numbers are their two's complement in 64 bits
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | str) -> bytes:
    """A varint field for an int, a length-delimited one for anything else."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def numbers(number: int, values: np.ndarray, form: str = "packed", dtype: str = "<f4") -> bytes:
    """A repeated float or double: "packed" in one run, "split" into several with an empty one, or "unpacked"."""
    data = np.asarray(values).ravel().astype(dtype).tobytes()
    width = np.dtype(dtype).itemsize
    if form == "packed":
        return field(number, data)
    if form == "split":
        third = max(len(data) // width // 3, 1) * width
        return b"".join(field(number, part) for part in (data[:third], b"", data[third : 2 * third], data[2 * third :]))
    tag = varint(number << 3 | (1 if width == 8 else 5))
    return b"".join(tag + data[i : i + width] for i in range(0, len(data), width))


# ------------------------------------------------------------------------------------------------- dialect A: C3D-v1.0


def blob_a(values: np.ndarray, form: str = "packed", length: int | None = -1, diff: bool = False) -> bytes:
    """num=1 channels=2 length=3 height=4 width=5 data=6 diff=7; `length` replaces that of the shape, None leaves it out."""
    shape = [1] * (5 - values.ndim) + list(values.shape)
    if length != -1:
        assert shape[2] == 1
        shape[2] = length
    sizes = b"".join(field(i, size) for i, size in enumerate(shape, start=1) if size is not None)
    return sizes + numbers(6, values, form) + (numbers(7, values + 1, form) if diff else b"")


def net_a(layers, form="packed", v0=False, **options) -> bytes:
    """NetParameter: name=1 layers=2*; LayerParameter: bottom=2 top=3 name=4 type=5 (enum) blobs=6*; V0 nested in layer=1."""
    out = field(1, "DeepNet")
    for i, (name, _, blobs) in enumerate(layers):
        encoded = [blob_a(blob, form, **options) for blob in blobs]
        if v0:
            inner = field(1, name) + field(2, "conv") + b"".join(field(50, blob) for blob in encoded)
            layer = field(1, inner) + field(2, "below") + field(3, name)
        else:
            layer = field(2, "below") + field(3, name) + field(4, name) + field(5, 4 + i)
            layer += b"".join(field(6, blob) for blob in encoded) + varint(7 << 3 | 5) + b"\0\0\x80\x3f"  # blobs_lr=7
        out += field(2, layer)
    return out


# ------------------------------------------------------------------------------------------------- dialect B: BVLC


def blob_b(
    values: np.ndarray,
    form: str = "packed",
    legacy: bool = False,
    double: bool = False,
    dims: str = "packed",
    diff=False,
) -> bytes:
    """shape=7 {dim=1*} data=5 diff=6 double_data=8 double_diff=9; `legacy`: num=1 channels=2 height=3 width=4."""
    out = b""
    if legacy:
        shape = [1] * (4 - values.ndim) + list(values.shape)
        out += b"".join(field(i, size) for i, size in enumerate(shape, start=1))
    out += numbers(8, values, form, "<f8") if double else numbers(5, values, form)
    if diff:
        out += numbers(9, values + 1, form, "<f8") if double else numbers(6, values + 1, form)
    if not legacy:
        if dims == "packed":
            out += field(7, field(1, b"".join(map(varint, values.shape))))
        else:
            out += field(7, b"".join(field(1, size) for size in values.shape))
    return out


def net_b(layers, form="packed", v1=False, **options) -> bytes:
    """NetParameter: name=1 layer=100*; LayerParameter: name=1 type=2 bottom=3 top=4 blobs=7*; V1: layers=2 as in A."""
    out = field(1, "ResNet-18")
    for name, kind, blobs in layers:
        encoded = [blob_b(blob, form, **options) for blob in blobs]
        if v1:
            layer = field(2, "below") + field(3, name) + field(4, name) + field(5, 4)
            out += field(2, layer + b"".join(field(6, blob) for blob in encoded))
        else:
            layer = field(1, name) + field(2, kind) + field(3, "below") + field(4, name)
            out += field(100, layer + b"".join(field(7, blob) for blob in encoded) + field(10, 1))  # phase=10
    return out


# ------------------------------------------------------------------------------------------------- files of zeros


def write_zeros(path, dialect: str, layers) -> None:
    """Write a file of either dialect whose values are all 0: holes, which take no room on the disk.

    `layers` are (name, type, shapes of the blobs). Messages are lists here of bytes, and numbers of bytes that are 0.
    """

    def size(parts) -> int:
        return sum(part if isinstance(part, int) else len(part) for part in parts)

    def nested(number: int, parts) -> list:
        return [varint(number << 3 | 2) + varint(size(parts)), *parts]

    with open(path, "wb") as file:
        for name, kind, shapes in layers:
            if dialect == "A":
                layer = [field(4, name) + field(5, 4)]
                for shape in shapes:
                    sizes = b"".join(field(i, n) for i, n in enumerate([1] * (5 - len(shape)) + list(shape), start=1))
                    layer += nested(6, [sizes, *nested(6, [4 * math.prod(shape)])])
            else:
                layer = [field(1, name) + field(2, kind)]
                for shape in shapes:
                    dims = field(7, field(1, b"".join(map(varint, shape))))
                    layer += nested(7, [*nested(5, [4 * math.prod(shape)]), dims])
            for part in nested(2 if dialect == "A" else 100, layer):
                if isinstance(part, int):
                    file.seek(part, 1)
                else:
                    file.write(part)
        file.truncate()


# ------------------------------------------------------------------------------------------------- published files


def c3d_layers(classes=487, widths=(64, 128, 256, 512, 512), fc_width=4096, suffix="-1"):
    """conv3d_deepnetA_sport1m_iter_1900000; c3d_ucf101_finetune_whole has no suffix."""
    layers, channels = [("data", "VIDEO_DATA", [])], 3
    for name in "1a 2a 3a 3b 4a 4b 5a 5b".split():
        width = widths[int(name[0]) - 1]
        layers += [
            (f"conv{name}", "CONVOLUTION3D", [(width, channels, 3, 3, 3), (1, 1, 1, 1, width)]),
            (f"relu{name}", "RELU", []),
        ]
        channels = width
    inputs = channels * 16
    for name, width in (("fc6", fc_width), ("fc7", fc_width), ("fc8", classes)):
        layers.append((name + suffix, "INNER_PRODUCT", [(1, 1, 1, width, inputs), (1, 1, 1, 1, width)]))
        inputs = width
    return [*layers, ("prob", "SOFTMAX", [])]


def res3d_layers(classes=487, widths=(64, 128, 256, 512), fc="fc8"):
    """c3d_resnet18_sports1m_r2_iter_2800000; the one fine-tuned on UCF101 has fc8-new."""
    layers = [("data", "VideoData", [])]

    def convolution(name, norm, *shape):
        layers.append((name, "Convolution3D", [shape]))
        layers.append((f"bn{norm}", "BatchNorm", [(shape[0],), (shape[0],), (1,)]))
        layers.append((f"scale{norm}", "Scale", [(shape[0],), (shape[0],)]))

    convolution("conv1", "_conv1", widths[0], 3, 3, 7, 7)
    channels = widths[0]
    for stage, width in enumerate(widths, start=2):
        for block in (f"{stage}a", f"{stage}b"):
            if block.endswith("a"):
                convolution(f"res{block}_branch1", f"{block}_branch1", width, channels, 1, 1, 1)
            convolution(f"res{block}_branch2a", f"{block}_branch2a", width, channels, 3, 3, 3)
            layers.append((f"res{block}_branch2a_relu", "ReLU", []))
            convolution(f"res{block}_branch2b", f"{block}_branch2b", width, width, 3, 3, 3)
            layers.append((f"res{block}", "Eltwise", []))
            channels = width
    return [*layers, (fc, "InnerProduct", [(classes, channels), (classes,)])]


def p3d_layers(classes=400, width=64, fc="fc_kinetics"):
    """p3d_resnet_kinetics, p3d_resnet_sports1m (fc_sports1m, 487)."""
    layers = [("data", "Input", [])]

    def convolution(name, norm, *shape):
        layers.append((name, "Convolution", [shape]))
        layers.append((f"bn{norm}", "BN", [(1, shape[0])] * 4))

    convolution("conv1", "_conv1", width, 3, 1, 7, 7)
    channels = width
    blocks = {2: "abc", 3: ["a", *(f"b{i}" for i in range(1, 8))], 4: ["a", *(f"b{i}" for i in range(1, 36))], 5: "abc"}
    for stage, names in blocks.items():
        inner = width * 2 ** (stage - 2)
        in_time = (1,) if stage < 5 else ()
        for name in names:
            block = f"{stage}{name}"
            if name == "a":
                convolution(f"res{block}_branch1", f"{block}_branch1", 4 * inner, channels, *in_time, 1, 1)
            convolution(f"res{block}_branch2a", f"{block}_branch2a", inner, channels, *in_time, 1, 1)
            convolution(f"res{block}_branch2b", f"{block}_branch2b", inner, inner, *in_time, 3, 3)
            if stage < 5:
                convolution(f"res{block}_branch2b_t", f"{block}_branch2b_t", inner, inner, 3, 1, 1)
            convolution(f"res{block}_branch2c", f"{block}_branch2c", 4 * inner, inner, *in_time, 1, 1)
            channels = 4 * inner
    return [*layers, (fc, "InnerProduct", [(classes, channels), (classes,)])]


def filled(layers, seed=0, factor=999.982):
    """The layers with seeded values from 0 to 1 for their shapes; every BatchNorm has the scale `factor`.

    Weights of convolutions and matrices are divided by the numbers they sum over, so that nothing overflows on the way up.
    """
    rng = np.random.default_rng(seed)
    result = []
    for name, kind, shapes in layers:
        blobs = [rng.random(shape, dtype=np.float32) for shape in shapes]
        if blobs and kind.upper().startswith(("CONV", "INNER")):
            blobs[0] *= np.float32(1 / math.prod(shapes[0][-4:] if "CONV" in kind.upper() else shapes[0][-1:]))
        if kind == "BatchNorm":
            blobs[2][:] = factor
        result.append((name, kind, blobs))
    return result


def in_our_names(layers) -> dict[str, np.ndarray]:
    """featx's names and shapes of the same values, by the types of the layers: a norm belongs to the layer before it."""
    state, before = {}, ""
    for name, kind, blobs in layers:
        if not blobs:
            continue
        norm = ".bn_".join(before.split("_", 1)) if "_" in before else f"bn_{before}"
        if kind == "BatchNorm":
            mean, variance, (factor,) = blobs
            state[f"{norm}.running_mean"] = mean / factor if factor else 0 * mean
            state[f"{norm}.running_var"] = variance / factor if factor else 0 * variance
        elif kind == "Scale":
            state[f"{norm}.weight"], state[f"{norm}.bias"] = blobs
        elif kind == "BN":
            for part, blob in zip(("weight", "bias", "running_mean", "running_var"), blobs, strict=True):
                state[f"{norm}.{part}"] = blob[0]
        else:
            before = name
            inner_product = kind in ("InnerProduct", "INNER_PRODUCT")
            own = name.split("-")[0].split("_")[0] if inner_product else name.replace("_", ".", 1)
            weight, *bias = blobs
            state[f"{own}.weight"] = weight.reshape(weight.shape[-2:]) if inner_product else weight
            if bias:
                state[f"{own}.bias"] = bias[0].ravel()
    return state

"""A loop over a feature file as a PyTorch Dataset: with featx, and with h5py alone.

    python examples/torch_dataset.py features.h5 --layer pool5

Both classes open the file when the first item is asked for, and so once in each worker of a DataLoader: an open HDF5 file must
not be shared by processes.
"""

from __future__ import annotations

import argparse

import h5py
import torch
from torch.utils.data import DataLoader, Dataset

import featx


class Features(Dataset):
    """Key and descriptor of every video; `video.clips[layer]` has the clip features of a file that holds some."""

    def __init__(self, path: str, layer: str) -> None:
        self.path, self.layer, self.file = path, layer, None
        with featx.open(path) as file:
            self.keys = file.keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> tuple[str, torch.Tensor]:
        if self.file is None:
            self.file = featx.open(self.path)
        video = self.file[self.keys[i]]
        return video.key, torch.from_numpy(video.descriptors[self.layer])


class PlainFeatures(Dataset):
    """The same without featx: one file, whose run is over."""

    def __init__(self, path: str, layer: str) -> None:
        self.path, self.layer, self.file = path, layer, None
        with h5py.File(path) as file:
            self.keys = list(file["videos/key"].asstr()[:])

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> tuple[str, torch.Tensor]:
        if self.file is None:
            self.file = h5py.File(self.path)
        return self.keys[i], torch.from_numpy(self.file[f"descriptors/{self.layer}"][i])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features")
    parser.add_argument("--layer", required=True)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for kind in (Features, PlainFeatures):
        data = kind(arguments.features, arguments.layer)
        for keys, rows in DataLoader(data, batch_size=32, num_workers=arguments.workers):
            total = rows.double().sum()
            print(f"{kind.__name__}: {len(keys)} videos from {keys[0]} on, rows {tuple(rows.shape)}, sum {total:.6f}")


if __name__ == "__main__":
    main()

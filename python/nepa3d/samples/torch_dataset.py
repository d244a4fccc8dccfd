"""Cached shapes as a ``torch.utils.data.Dataset`` of token sequences, for a training loop of one's own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nepa3d.corpora.shape_list import list_shapes
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.loader import Request, training_batch
from nepa3d.shapes.views import require_backend

TOKENS = SampleSettings(256, 256, qa=True, eos=True)


class ShapeDataset(Dataset[tuple[Tensor, Tensor]]):
    """The shapes of one split of a cache, each as features (T, 15) float32 and token types (T,) int64.

    A sample's queries are drawn anew in each epoch, as a function of (``seed``, epoch, index) alone: neither the number
    of workers nor the order matters. Call ``set_epoch`` before each epoch. Works with any ``DataLoader``; a whole batch
    is read by one call of the compiled loader.

    ```python
    data = ShapeDataset("data/shapenet_cache_v0", "train", "pointcloud_noray")
    for epoch in range(10):
        data.set_epoch(epoch)
        for features, types in DataLoader(data, batch_size=32, shuffle=True, num_workers=4):
            ...
    ```
    """

    def __init__(
        self,
        cache_root: str,
        split: str = "train",
        view: str = "mesh",
        settings: SampleSettings = TOKENS,
        seed: int = 0,
    ) -> None:
        require_backend(view, "view")
        self.paths = list_shapes(cache_root, split)
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that live on see a new one
        self._requests = [Request(path, view, settings) for path in self.paths]

    @property
    def epoch(self) -> int:
        """Whose samples are drawn."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw the samples of another epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """The samples of a batch, read together; what torch's ``DataLoader`` calls."""
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"index must be from 0 to {len(self) - 1}, got {index}")
        asked = [self._requests[index] for index in indices]
        features, types = training_batch(asked, self.seed, self.epoch, indices)
        return list(zip(torch.from_numpy(features), torch.from_numpy(types), strict=True))

"""Principal components of descriptors, in bounded memory, from a source that is read in blocks.

    covariance   D x D matrix, summed over the blocks           exact; D up to 10,000
    gram         rows x rows matrix, a panel of rows at a time  exact; up to 16,000 rows, fewer than D or D above 10,000
    randomised   subspace iteration, a pass over the blocks each; anything larger, and its error is stated

The cheapest exact method is chosen. All of them work in float64 on rows that have the mean already taken away: sums of
squares first and the mean afterwards would cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np

from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, ProvenanceError, UsageError

__all__ = ["Basis", "Origin", "Source", "array_source", "block_rows", "choose_method", "fit_basis"]

Source = Callable[[], Iterable[np.ndarray]]  # each call yields the same float32 (n, D) blocks from the start

COVARIANCE_DIMS = 10_000  # 0.8 GB of float64
GRAM_ROWS = 16_000  # 2 GB
BLOCK_VALUES = 1 << 24  # 128 MB of float64
PANEL_VALUES = 1 << 27  # 1 GB: the rows that meet all others in one pass of the Gram matrix
MAX_PASSES = 16
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Origin:
    """The features that a basis belongs to; an empty field is not known."""

    backbone: str = ""
    checkpoint: str = ""
    checkpoint_sha256: str = ""
    variant: str = ""
    layer: str = ""

    def check_equal(self, other: Origin, what: str) -> None:
        """Raise ProvenanceError, naming the field, if `other` (the origin of `what`) differs."""
        for f in fields(self):
            ours, theirs = getattr(self, f.name), getattr(other, f.name)
            if ours != theirs:
                raise ProvenanceError(
                    f"{f.name} of the basis is '{ours}', of {what} '{theirs}'; a basis fits only features of the "
                    "layer and checkpoint it was made from: fit one with --dims"
                )


@dataclass(frozen=True, eq=False)
class Basis:
    """A fitted PCA: what to subtract, what to project on, and where it comes from.

    `mean` float32 (D,), `components` float32 (d, D) of unit length (zero where the rows have no variance left; the entry of
    largest magnitude is positive), `explained_variance` float64 (d,), with divisor num_rows - 1, `total_variance` over
    all D dimensions. `unit_rows`: the basis was fitted on rows of unit length, so `apply` first brings rows to
    unit length: nothing to a descriptor, and it puts clip features on the descriptors' scale. `error`: 0 for the exact methods;
    else the largest ``|C v - variance v| / variance`` of the components v, C being the covariance.
    """

    mean: np.ndarray
    components: np.ndarray
    explained_variance: np.ndarray
    total_variance: float
    num_rows: int
    method: str
    error: float = 0.0
    fitted_on: str = ""
    unit_rows: bool = False
    whiten: bool = False
    l2: bool = False
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        d, num_features = self.components.shape
        if self.mean.shape != (num_features,) or self.explained_variance.shape != (d,):
            raise FeatureFileError(
                f"a basis with components {self.components.shape} has mean {self.mean.shape} and variances "
                f"{self.explained_variance.shape}, but must have ({num_features},) and ({d},)"
            )

    @property
    def num_dims(self) -> int:
        """Dimensions after the projection."""
        return len(self.components)

    @property
    def explained_variance_ratio(self) -> np.ndarray:
        """Share of the total variance of each component, float64 (d,), 0 to 1."""
        return self.explained_variance / self.total_variance if self.total_variance > 0 else self.explained_variance

    def apply(self, block: np.ndarray) -> np.ndarray:
        """Project rows, float32 (n, D) -> float32 (n, d); whitened and L2-normalised if the basis says so."""
        if block.ndim != 2 or block.shape[1] != len(self.mean):
            raise UsageError(f"rows have shape {block.shape}, but the basis takes (rows, {len(self.mean)})")
        rows = l2_normalise(block) if self.unit_rows else np.asarray(block, dtype=np.float32)
        projected = (rows - self.mean) @ self.components.T
        if self.whiten:
            variance = self.explained_variance
            projected /= np.sqrt(np.where(variance > 0, variance, 1)).astype(np.float32)
        return l2_normalise(projected) if self.l2 else projected

    def truncate(self, dims: int) -> Basis:
        """The same basis with its first `dims` components only."""
        if not 1 <= dims <= self.num_dims:
            raise UsageError(f"dims is {dims}, but the basis has {self.num_dims}; ask for 1 to {self.num_dims}")
        return replace(self, components=self.components[:dims], explained_variance=self.explained_variance[:dims])

    def to_dict(self) -> dict[str, np.ndarray | float | int | str]:
        """The basis as arrays and scalars, as a feature file keeps it."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "origin"}
        values["explained_variance_ratio"] = self.explained_variance_ratio
        flags = {name: int(values[name]) for name in ("unit_rows", "whiten", "l2")}
        return {**values, **flags, **asdict(self.origin)}

    @classmethod
    def from_dict(cls, values: dict) -> Basis:
        """The inverse of `to_dict`. Raises FeatureFileError where something is missing."""
        names = [f.name for f in fields(cls) if f.name != "origin"] + [f.name for f in fields(Origin)]
        missing = [name for name in names if name not in values]
        if missing:
            raise FeatureFileError(f"the basis lacks {', '.join(missing)}; make the compact file anew with 'featx pca'")
        return cls(
            mean=np.asarray(values["mean"], dtype=np.float32),
            components=np.asarray(values["components"], dtype=np.float32),
            explained_variance=np.asarray(values["explained_variance"], dtype=np.float64),
            total_variance=float(values["total_variance"]),
            num_rows=int(values["num_rows"]),
            method=str(values["method"]),
            error=float(values["error"]),
            fitted_on=str(values["fitted_on"]),
            unit_rows=bool(values["unit_rows"]),
            whiten=bool(values["whiten"]),
            l2=bool(values["l2"]),
            origin=Origin(**{f.name: str(values[f.name]) for f in fields(Origin)}),
        )


def block_rows(num_features: int) -> int:
    """Rows of `num_features` numbers that make a block of moderate size."""
    return max(1, min(4096, BLOCK_VALUES // num_features))


def array_source(rows: np.ndarray) -> Source:
    """A source of blocks from rows in memory, float32 (n, D)."""
    step = block_rows(rows.shape[1])
    return lambda: (rows[i : i + step] for i in range(0, len(rows), step))


def choose_method(num_rows: int, num_features: int) -> str:
    """The cheapest exact method that fits into memory, else "randomised"."""
    if num_rows <= GRAM_ROWS and num_features > min(num_rows, COVARIANCE_DIMS):
        return "gram"
    return "covariance" if num_features <= COVARIANCE_DIMS else "randomised"


def check_dims(dims: int, num_rows: int, num_features: int, what: str = "") -> None:
    """Raise UsageError if `num_rows` rows of `num_features` numbers have no `dims` components."""
    most = min(num_rows, num_features)
    if num_rows < 2 or not 1 <= dims <= most:
        remedy = "ask for 1 or more" if dims < 1 else "ask for fewer, or fit on more videos"
        remedy = "fit on more videos" if num_rows < 2 else remedy
        raise UsageError(
            f"dims is {dims}{what and ' for ' + what}, but PCA of {num_rows} rows x {num_features} dimensions needs at least "
            f"2 rows and gives 1 to {most} dimensions; {remedy}"
        )


def fit_basis(
    source: Source,
    dims: int,
    *,
    method: str | None = None,
    whiten: bool = False,
    l2: bool = False,
    fitted_on: str = "",
    origin: Origin | None = None,
) -> Basis:
    """Fit `dims` principal components to the rows of `source`, which is read several times.

    `method` is one of METHODS, None for `choose_method`. Raises UsageError if `dims` is above min(rows, D), FeatureFileError
    for values that are not finite.
    """
    num_rows, mean, unit_rows = _first_pass(source)
    check_dims(dims, num_rows, len(mean), origin.layer if origin else "")
    method = method or choose_method(num_rows, len(mean))

    def centred() -> Iterator[np.ndarray]:
        return (block - mean for block in source())  # float32 - float64 -> float64

    components, squares, total, error = METHODS[method](centred, num_rows, len(mean), dims)
    # directions without variance are noise of the arithmetic; zero is the only answer that is the same every time
    alive = squares > max(squares[0], 0) * max(num_rows, len(mean)) * np.finfo(np.float64).eps
    components = np.where(alive[:, None], components, 0)
    largest = np.abs(components).argmax(axis=1)
    components *= np.where(components[np.arange(dims), largest] < 0, -1, 1)[:, None]
    return Basis(
        mean=mean.astype(np.float32),
        components=components.astype(np.float32),
        explained_variance=np.where(alive, squares, 0) / (num_rows - 1),
        total_variance=total / (num_rows - 1),
        num_rows=num_rows,
        method=method,
        error=error,
        fitted_on=fitted_on,
        unit_rows=unit_rows,
        whiten=whiten,
        l2=l2,
        origin=origin or Origin(),
    )


def _first_pass(source: Source) -> tuple[int, np.ndarray, bool]:
    """Number of rows, mean float64 (D,), and whether all rows (but zero ones) have unit length."""
    num_rows, total, unit_rows = 0, np.zeros(0), True
    for block in source():
        lengths = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
        if not np.isfinite(lengths).all():
            raise FeatureFileError(
                f"row {num_rows + int(np.argmin(np.isfinite(lengths)))} holds values that are not finite; "
                "extract that video again"
            )
        unit_rows &= bool((np.abs(lengths[lengths > 0] - 1) < 1e-3).all())
        total = (total if num_rows else 0) + block.sum(axis=0, dtype=np.float64)
        num_rows += len(block)
    return num_rows, total / max(num_rows, 1), unit_rows


# Each method takes the centred float64 blocks and returns components (d, D), their sums of squares (d,), largest first, the sum
# of squares of everything, and the error.


def _covariance(centred: Source, num_rows: int, num_features: int, dims: int) -> tuple:
    scatter = np.zeros((num_features, num_features))
    for block in centred():
        scatter += block.T @ block
    total = float(np.trace(scatter))
    squares, vectors = np.linalg.eigh(scatter)  # smallest first
    return vectors[:, : -dims - 1 : -1].T, squares[: -dims - 1 : -1], total, 0.0


def _gram(centred: Source, num_rows: int, num_features: int, dims: int) -> tuple:
    gram = np.zeros((num_rows, num_rows))
    start = 0
    for panel in _panels(centred, max(1, PANEL_VALUES // num_features)):
        column = 0
        for block in centred():
            if column + len(block) > start:  # the upper triangle is enough
                gram[start : start + len(panel), column : column + len(block)] = panel @ block.T
            column += len(block)
        start += len(panel)
    total = float(np.trace(gram))
    squares, vectors = np.linalg.eigh(gram, UPLO="U")
    squares, vectors = squares[: -dims - 1 : -1], vectors[:, : -dims - 1 : -1]
    components = np.zeros((dims, num_features))
    row = 0
    for block in centred():
        components += vectors[row : row + len(block)].T @ block
        row += len(block)
    lengths = np.linalg.norm(components, axis=1, keepdims=True)
    return components / np.where(lengths > 0, lengths, 1), squares, total, 0.0


def _panels(centred: Source, rows: int) -> Iterator[np.ndarray]:
    """Join neighbouring blocks until a panel has at least `rows` rows."""
    held: list[np.ndarray] = []
    for block in centred():
        held.append(block)
        if sum(map(len, held)) >= rows:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _randomised(centred: Source, num_rows: int, num_features: int, dims: int) -> tuple:
    width = min(dims + max(20, dims // 2), num_features, num_rows)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((num_features, width)))[0]
    for _ in range(MAX_PASSES):
        image = np.zeros((num_features, width))  # scatter @ basis
        total = 0.0
        for block in centred():
            image += block.T @ (block @ basis)
            total += float(np.vdot(block, block))
        squares, rotation = np.linalg.eigh(basis.T @ image)
        squares, rotation = squares[: -dims - 1 : -1], rotation[:, : -dims - 1 : -1]
        vectors = basis @ rotation
        residuals = np.linalg.norm(image @ rotation - vectors * squares, axis=0)
        error = float((residuals / np.where(squares > 0, squares, 1)).max())
        if error < TOLERANCE:
            break
        basis = np.linalg.qr(image)[0]
    return vectors.T, squares, total, error


METHODS = {"covariance": _covariance, "gram": _gram, "randomised": _randomised}

"""The linear SVM by Newton steps, all classes at once: each pass over the rows serves every class.

For each class, one against the rest, with y = +1 for its rows and -1 for all others,

    f(w, b) = (|w|^2 + b^2) / 2 + C sum max(0, 1 - y (w x + b))^2

is made smallest: what LinearSVC minimises by default, its intercept regularised like a weight. f is convex and piecewise
quadratic. With A the rows inside their margin (y (w x + b) < 1), x~ = (x, 1) and v = (w, b),

    gradient  g = v - 2 C sum_A (y - v x~) x~          curvature  H p = p + 2 C sum_A (p x~) x~

so a product with H costs two passes over the rows and H itself is never formed. A step is

    1. H s = -g about, by conjugate gradients                     (Newton's direction)
    2. t with f(v + t s) least: the zero of a rising, piecewise linear function    (exact line search)

and there are finitely many sets A, so that the last full step ends at the minimum. f is at least as curved as |v|^2 / 2, hence

    f(v) - min f <= |g|^2 / 2    and    |v - best v| <= |g|

which bounds both errors without a dual problem. A class stops where |g|^2 / 2 is a small share of f, and of |v|^2.

Sources: Keerthi and DeCoste, A modified finite Newton method for fast solution of large scale linear SVMs, JMLR 6 (2005);
Lin, Weng and Keerthi, Trust region Newton method for large-scale logistic regression, JMLR 9 (2008), liblinear's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["NewtonResult", "minimise"]

TOLERANCE = 1e-5  # of the objective: a hundredth of what changes an accuracy's second digit
LEFT_OVER = 0.3  # of |g|: what conjugate gradients may leave of H s + g at first
LEAST_LEFT_OVER = 1e-3
MAX_NEWTON, MAX_CG, MAX_LINE = 100, 400, 30
BLOCK_VALUES = 1 << 24  # rows are turned into float64 so many numbers at a time


@dataclass(frozen=True, eq=False)
class NewtonResult:
    """`vectors` float64 (D + 1, k), a column a class, the bias last; `objectives` and `gaps` float64 (k,).

    A class's objective is above its minimum by its gap at most. `num_passes`: products with all rows, for the curious.
    """

    vectors: torch.Tensor
    objectives: torch.Tensor
    gaps: torch.Tensor
    converged: bool
    num_passes: int


class _Rows:
    """The rows (n, D) with a column of ones behind, which is never written; products in float32 or float64."""

    def __init__(self, rows: torch.Tensor, dtype: torch.dtype) -> None:
        self.rows, self.dtype = rows, dtype
        step = max(1, BLOCK_VALUES // rows.shape[1])
        self.slices = [slice(i, min(i + step, len(rows))) for i in range(0, len(rows), step)]
        self.num_passes = 0

    def times(self, vectors: torch.Tensor) -> torch.Tensor:
        """Scores: (D + 1, k) -> (n, k)."""
        self.num_passes += 1
        weights, bias = _padded(vectors[:-1]), vectors[-1]
        if self.dtype == self.rows.dtype:
            scores = self.rows @ weights
        else:
            scores = torch.cat([self.rows[part].to(self.dtype) @ weights for part in self.slices])
        return scores[:, : len(bias)] + bias

    def transposed_times(self, values: torch.Tensor) -> torch.Tensor:
        """Sums of rows: (n, k) -> (D + 1, k)."""
        self.num_passes += 1
        padded = _padded(values)
        if self.dtype == self.rows.dtype:
            sums = self.rows.T @ padded
        else:
            sums = sum(self.rows[part].to(self.dtype).T @ padded[part] for part in self.slices)
        return torch.cat([sums[:, : values.shape[1]], values.sum(0, keepdim=True)])


def _padded(columns: torch.Tensor) -> torch.Tensor:
    """Columns of zeros added up to a multiple of 8: the matrix product is a third faster for them."""
    return torch.nn.functional.pad(columns, (0, -columns.shape[1] % 8))


def minimise(
    rows: torch.Tensor,
    signs: torch.Tensor,
    *,
    C: float,
    start: torch.Tensor | None = None,
    tolerance: float = TOLERANCE,
    progress: Callable[[float], object] = lambda share: None,
) -> NewtonResult:
    """Minimise f for every column of `signs`, on the device that the rows are on.

    `rows` float32 (n, D), `signs` float32 (n, k) of +1 and -1, `start` (D + 1, k) what to begin with (default: zero).
    A class stops when its gap is at most `tolerance` of its objective and of its vector's square; where float32 is too
    coarse for that, it goes on in float64. `progress` is called with shares of the work that add up to 1. The same input
    gives the same bits on the same number of threads.
    """
    num_dims, k = rows.shape[1] + 1, signs.shape[1]
    vectors = torch.zeros(num_dims, k, dtype=torch.float64, device=rows.device)
    if start is not None:
        vectors.copy_(start)
    objectives = torch.full((k,), torch.inf, dtype=torch.float64, device=rows.device)
    gaps = objectives.clone()
    limits = torch.zeros_like(objectives)
    meter = _Meter(k, tolerance, progress)
    num_passes = 0
    for dtype in (torch.float32, torch.float64):
        live = torch.nonzero(gaps > limits)[:, 0]
        if not len(live):
            break
        passes = _Rows(rows, dtype)
        _descend(passes, signs, C, tolerance, vectors, objectives, gaps, limits, live, meter)
        num_passes += passes.num_passes
    meter.finish()
    converged = bool((gaps <= limits).all())
    return NewtonResult(vectors, objectives, gaps, converged, num_passes)


def _descend(
    rows: _Rows,
    signs: torch.Tensor,
    C: float,
    tolerance: float,
    vectors: torch.Tensor,
    objectives: torch.Tensor,
    gaps: torch.Tensor,
    limits: torch.Tensor,
    live: torch.Tensor,
    meter: _Meter,
) -> None:
    """Newton steps on the classes in `live`, in place, until each is done or this precision helps it no more."""
    v, y = vectors[:, live].to(rows.dtype), signs[:, live].to(rows.dtype)
    slack = 1 - y * rows.times(v)  # how far inside the margin, (n, k)
    left_over = torch.full((len(live),), LEFT_OVER, dtype=torch.float64, device=live.device)
    for _ in range(MAX_NEWTON):
        inside = slack.clamp(min=0)
        vv = _dots(v, v)
        f = 0.5 * vv + C * _dots(inside, inside)
        g = v - 2 * C * rows.transposed_times(y * inside)
        gap, limit = 0.5 * _dots(g, g), tolerance * torch.minimum(f, vv)
        vectors[:, live], objectives[live], gaps[live], limits[live] = v.double(), f, gap, limit
        meter.update(live, gap / f)
        going = gap > limit
        if not going.any():
            return
        if not going.all():
            live, left_over = live[going], left_over[going]
            v, y, slack, g = v[:, going], y[:, going], slack[:, going], g[:, going]
        active = (slack > 0).to(rows.dtype)
        s, ys = _newton_direction(rows, active, y, g, C, left_over)
        t = _line_search(v, s, slack, ys, C)
        moved = (t.abs() * s.norm(dim=0)) > _least_step(rows.dtype) * v.norm(dim=0)
        if not moved.any():
            return
        v = v + t * s
        slack = 1 - y * rows.times(v) if rows.dtype == torch.float32 else slack - t * ys
        # a direction that ran into other rows' margins at once was not worth its name: find the next more exactly
        left_over = torch.where(t < 0.5, left_over / 3, left_over).clamp(min=LEAST_LEFT_OVER)
        if not moved.all():
            live, left_over = live[moved], left_over[moved]
            v, y, slack = v[:, moved], y[:, moved], slack[:, moved]


def _least_step(dtype: torch.dtype) -> float:
    return 4 * torch.finfo(dtype).eps


def _newton_direction(
    rows: _Rows, active: torch.Tensor, y: torch.Tensor, g: torch.Tensor, C: float, left_over: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """s (D + 1, k) with H s = -g about, and y * (x~ s), (n, k)."""
    out, out_ys = torch.zeros_like(g), torch.zeros_like(y)
    columns = torch.arange(g.shape[1], device=g.device)
    s, xs, r = torch.zeros_like(g), torch.zeros_like(y), -g
    p, rr = r, _dots(r, r)
    enough = left_over**2 * rr
    for _ in range(MAX_CG):
        xp = rows.times(p)
        hp = p + 2 * C * rows.transposed_times(active * xp)
        alpha = (rr / _dots(p, hp)).to(p.dtype)
        s, xs, r = s + alpha * p, xs + alpha * xp, r - alpha * hp
        rr_next = _dots(r, r)
        p = r + (rr_next / rr).to(p.dtype) * p
        rr = rr_next
        going = rr > enough
        if not going.all():
            done = ~going
            out[:, columns[done]], out_ys[:, columns[done]] = s[:, done], xs[:, done]
            if not going.any():
                break
            columns, s, xs, r, p = columns[going], s[:, going], xs[:, going], r[:, going], p[:, going]
            rr, enough, active = rr[going], enough[going], active[:, going]
    else:
        out[:, columns], out_ys[:, columns] = s, xs
    return out, y * out_ys


def _line_search(v: torch.Tensor, s: torch.Tensor, slack: torch.Tensor, ys: torch.Tensor, C: float) -> torch.Tensor:
    """The step t (k,) of each class where the slope of f along s is zero, to a hundredth of the slope at 0.

    slope(t) = v s + t s s - 2 C sum max(0, slack - t ys) ys rises with t. Newton's method on it, kept inside a bracket.
    """
    vs, ss = _dots(v, s), _dots(s, s)
    t = torch.ones_like(vs)
    low, high = torch.zeros_like(t), torch.full_like(t, torch.inf)
    first = vs - 2 * C * _dots(slack.clamp(min=0), ys)
    for _ in range(MAX_LINE):
        inside = (slack - t.to(slack.dtype) * ys).clamp_(min=0)
        slope = vs + t * ss - 2 * C * _dots(inside, ys)
        done = slope.abs() <= 0.01 * first.abs()
        if done.all():
            break
        curvature = ss + 2 * C * _dots((inside > 0) * ys, ys)
        low, high = torch.where(slope < 0, t, low), torch.where(slope > 0, t, high)
        step = t - slope / curvature
        middle = torch.where(high.isinf(), 2 * t, (low + high) / 2)
        t = torch.where(done, t, torch.where((step > low) & (step < high), step, middle))
    return t.to(s.dtype)


def _dots(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Inner products of columns, float64 (k,)."""
    return (a * b).sum(0, dtype=torch.float64)


class _Meter:
    """Turns the gaps of the classes, which fall by orders of magnitude, into shares of the work done."""

    def __init__(self, num_classes: int, tolerance: float, progress: Callable[[float], object]) -> None:
        self.tolerance, self.progress = tolerance, progress
        self.first: torch.Tensor | None = None
        self.shares = torch.zeros(num_classes, dtype=torch.float64)
        self.told = 0.0

    def update(self, live: torch.Tensor, relative_gaps: torch.Tensor) -> None:
        live, orders = live.cpu(), (relative_gaps.cpu() / self.tolerance).clamp(min=1).log()
        if self.first is None:
            self.first = orders.clamp(min=1e-9)
        shares = (1 - orders / self.first[live]).clamp(min=0)
        self.shares[live] = torch.maximum(self.shares[live], shares)
        self._tell(float(self.shares.mean()))

    def finish(self) -> None:
        self._tell(1.0)

    def _tell(self, share: float) -> None:
        if share > self.told:
            self.progress(share - self.told)
            self.told = share

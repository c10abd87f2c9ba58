"""When an update is not to be made, and what follows when that goes on.

An update whose gradient is not finite, or much longer than is usual, is skipped. After too
many running the training returns to its last state and goes on with the crops that come
next in the stream, so that it does not meet the same ones again. All of this follows from
the numbers of the updates and is kept in states: a training that was killed on the way
takes the same turns when it continues.
"""

import math
from collections import deque
from statistics import median
from typing import Any

from phenopipe.errors import UserError

# Updates whose gradient norms make the running median, and how many it takes to trust it.
WINDOW, TRUSTED_FROM = 100, 20


class Guard:
    """Judge updates one after another.

    Parameters
    ----------
    max_ratio : float or None
        Longest gradient in units of the running median; None: any length will do.
    max_skipped : int
        Updates that may be skipped running.
    max_returns : int
        How often the training may return to a state.
    """

    def __init__(self, max_ratio: float | None, max_skipped: int, max_returns: int) -> None:
        self.max_ratio = max_ratio
        self.max_skipped = max_skipped
        self.max_returns = max_returns
        self.skipped = self.returns = self.shift = self.total = 0
        self.norms: deque[float] = deque(maxlen=WINDOW)

    def accepts(self, norm: float, loss: float) -> bool:
        """Tell whether an update is to be made, and count it."""
        sound = math.isfinite(norm) and math.isfinite(loss)
        if sound and self.max_ratio is not None and len(self.norms) >= TRUSTED_FROM:
            sound = norm <= self.max_ratio * median(self.norms)
        if sound:
            self.norms.append(norm)
        self.skipped = 0 if sound else self.skipped + 1
        self.total += not sound
        return sound

    @property
    def gives_up(self) -> bool:
        """Whether too many updates running were skipped."""
        return self.skipped > self.max_skipped

    def returned(self, before: "Guard", from_update: int, to_update: int) -> None:
        """Take over a count from before the return to a state, and leave out its crops."""
        self.skipped = 0
        self.total = before.total
        self.returns = before.returns + 1
        self.shift = from_update + before.shift - to_update

    def told(self, update: int, norm: float) -> str:
        """Say that an update was skipped."""
        return f"update {update} skipped, its gradient is {norm:.3g} long ({self.total} in all)"

    def complain(self, name: str, update: int, lr: float) -> UserError:
        """Say that the training cannot go on."""
        often = f", after {self.returns} returns to an earlier state" if self.returns else ""
        return UserError(
            f"{name}: gradients are not finite or too long in {self.skipped} updates running, "
            f"the last being {update}{often}; lower lr (found {lr:g})"
        )

    def state(self) -> dict[str, Any]:
        """Everything that decides later judgements."""
        counts = {"skipped": self.skipped, "returns": self.returns, "shift": self.shift}
        return {**counts, "total": self.total, "norms": list(self.norms)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self.skipped, self.returns = state["skipped"], state["returns"]
        self.shift, self.total = state["shift"], state.get("total", 0)
        self.norms = deque(state["norms"], maxlen=WINDOW)

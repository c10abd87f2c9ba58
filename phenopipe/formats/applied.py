"""What was applied to the wells of a whole data set, as numbers: six bytes a well.

A target is a condition with its gene: all that a well can be kept or lost for. Wells are
numbered from 0 in the order in which their tables come.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.conditions import AMONG, BETWEEN, NOTHING, TARGET, as_text
from phenopipe.formats.wells import CONDITION, CONDITIONS, KINDS, N_IMAGES, ROLES
from phenopipe.threads import side_by_side

# Number of the target of a well that has none, while their number is not known.
_NONE = np.uint32(2**32 - 1)
# Wells that are counted at once: numpy counts in numbers of eight bytes.
_STRETCH = 4_000_000
Mask = NDArray[np.bool_]
Counts = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Coded:
    """The wells of one table: as :class:`Applied`, with targets numbered by a vocabulary."""

    first_W: NDArray[np.uint32]
    more_E: NDArray[np.uint32]
    owner_E: NDArray[np.int64]
    role_W: NDArray[np.uint8]
    images_W: Counts

    @property
    def n_targets(self) -> int:
        """One more than the largest number of a target."""
        first_W = self.first_W[self.first_W != _NONE]
        return max(
            (int(one.max()) + 1 for one in (first_W, self.more_E) if len(one)), default=0
        )


class Vocabulary:
    """Numbers for targets, the same in every table that one vocabulary codes.

    The numbers depend on the order in which tables come; nothing that is written may.
    """

    def __init__(self) -> None:
        self._texts = pl.Categorical(pl.Categories.random())
        # The numbers are forgotten when no series is left that uses them.
        self._kept = pl.Series([], dtype=self._texts)

    def code(self, wells: pl.DataFrame) -> Coded:
        """Code the wells of one table.

        Parameters
        ----------
        wells : DataFrame
            ``role``, ``n_images`` and ``conditions`` (``condition_texts``).

        Raises
        ------
        UserError
            If a role is none of the known words.
        """
        text = pl.col(CONDITIONS)
        several = text.str.contains(AMONG, literal=True).fill_null(value=False)
        one, more = wells.select(
            one=pl.when(~several).then(text).cast(self._texts), more=pl.when(several).then(text)
        )
        first_W = one.to_physical().fill_null(_NONE).to_numpy(writable=True)
        (row_M,) = np.nonzero(more.is_not_null().to_numpy())
        lists = more.gather(row_M).str.split(AMONG)
        target_A = lists.explode().cast(self._texts).to_physical().to_numpy()
        owner_A = np.repeat(row_M, lists.list.len().to_numpy())
        is_first_A = np.ones(len(owner_A), dtype=bool)
        is_first_A[1:] = owner_A[1:] != owner_A[:-1]
        first_W[row_M] = target_A[is_first_A]
        images_W = wells[N_IMAGES].to_numpy()
        most = np.min_scalar_type(int(images_W.max(initial=0)))
        return Coded(
            first_W=first_W,
            more_E=target_A[~is_first_A],
            owner_E=owner_A[~is_first_A],
            role_W=_role_codes(wells["role"]),
            images_W=images_W.astype(most),
        )

    def targets(self, n: int) -> pl.DataFrame:
        """List the first n targets: ``kind, perturbation, concentration_um, gene``."""
        texts = pl.Series(np.arange(n, dtype=np.uint32)).cat.to(self._texts).cast(pl.String)
        fields = texts.str.split_exact(BETWEEN, len(TARGET) - 1).struct.unnest()
        kinds = set(fields["field_0"].unique())
        for kind in sorted(kinds - {*KINDS, NOTHING}):
            raise UserError(f"kind of perturbation {kind!r}, wanted {', '.join(KINDS)}")
        return fields.select(
            pl.col(f"field_{i}").replace(NOTHING, None).alias(name)
            for i, name in enumerate(TARGET)
        ).cast({"concentration_um": pl.Float64})


def _role_codes(role: pl.Series) -> NDArray[np.uint8]:
    try:
        return role.cast(pl.Enum(ROLES)).to_physical().to_numpy()
    except pl.exceptions.InvalidOperationError:
        unknown = role.filter(~role.is_in(ROLES))[0]
        raise UserError(f"role {unknown!r} of a well, wanted {', '.join(ROLES)}") from None


@dataclass(frozen=True)
class Applied:
    """What was applied to every well of a data set.

    Attributes
    ----------
    targets : DataFrame
        ``kind, perturbation, concentration_um, gene``, one row a target.
    first_W : uint32 array of shape (n_wells,)
        First target of each well, or their number where a well has none.
    more_E, owner_E : uint32 and int64 arrays of shape (n_more,)
        Targets after the first, and the well that has each; sorted by well.
    role_W : uint8 array of shape (n_wells,)
        Position in ``ROLES``.
    images_W : unsigned array of shape (n_wells,)
        Images of each well.
    """

    targets: pl.DataFrame
    first_W: NDArray[np.uint32]
    more_E: NDArray[np.uint32]
    owner_E: NDArray[np.int64]
    role_W: NDArray[np.uint8]
    images_W: Counts

    @classmethod
    def of(cls, vocabulary: Vocabulary, coded: Sequence[Coded]) -> "Applied":
        """Put the tables that a vocabulary has coded one after the other."""
        starts = np.cumsum([0, *(len(one.first_W) for one in coded)])
        first_W = _joined([one.first_W for one in coded], np.uint32)
        more_E = _joined([one.more_E for one in coded], np.uint32)
        n = max((one.n_targets for one in coded), default=0)
        first_W[first_W == _NONE] = n
        owners = [one.owner_E + start for one, start in zip(coded, starts, strict=False)]
        return cls(
            targets=vocabulary.targets(n),
            first_W=first_W,
            more_E=more_E,
            owner_E=_joined(owners, np.int64),
            role_W=_joined([one.role_W for one in coded], np.uint8),
            images_W=_joined([one.images_W for one in coded], np.uint8),
        )

    def has_role(self, *roles: str) -> Mask:
        """Which wells have one of these roles."""
        found_W = np.zeros(len(self.role_W), dtype=bool)
        for role in roles:
            found_W |= self.role_W == ROLES.index(role)
        return found_W

    def wells_with(self, chosen_T: Mask) -> Mask:
        """Which wells have at least one of the chosen targets."""
        found_W = np.append(chosen_T, False)[self.first_W]
        found_W[self.owner_E[chosen_T[self.more_E]]] = True
        return found_W

    def targets_in(self, chosen_W: Mask) -> Mask:
        """Which targets occur in at least one of the chosen wells."""
        return self.most_of_targets(chosen_W.view(np.uint8)) > 0

    def most_of_targets(self, number_W: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Largest number among the wells of each target, 0 where none has it."""
        most_T = np.zeros(self.targets.height + 1, dtype=np.uint8)

        def most(rows: slice) -> NDArray[np.uint8]:
            found_T = np.zeros_like(most_T)
            # Ascending, so that the largest is written last.
            for number in range(1, int(number_W[rows].max(initial=0)) + 1):
                found_T[self.first_W[rows][number_W[rows] == number]] = number
            return found_T

        for found_T in side_by_side(most, _stretches(len(number_W))):
            np.maximum(most_T, found_T, out=most_T)
        np.maximum.at(most_T, self.more_E, number_W[self.owner_E])
        return most_T[:-1]

    def gathered(self, chosen_W: Mask) -> tuple["Applied", NDArray[np.int64]]:
        """Make one well of all chosen wells that have one target alone, and the same.

        Returns
        -------
        applied : Applied
            These, one a target, then the chosen wells with several targets; those with
            none are left out, and so are roles.
        wells_W : int64 array
            How many wells each of them stands for.
        """
        n = self.targets.height
        several_W = np.zeros(len(self.first_W), dtype=bool)
        several_W[self.owner_E] = True
        wells_T, images_T = self.tallied(self.first_W, n + 1, chosen_W & ~several_W)
        several_W &= chosen_W
        stays_E = several_W[self.owner_E]
        number_W = np.cumsum(several_W) - 1 + n
        each = Applied(
            targets=self.targets,
            first_W=np.concatenate([np.arange(n, dtype=np.uint32), self.first_W[several_W]]),
            more_E=self.more_E[stays_E],
            owner_E=number_W[self.owner_E[stays_E]],
            role_W=np.zeros(n + int(several_W.sum()), dtype=np.uint8),
            images_W=np.concatenate([images_T[:-1], self.images_W[several_W]]),
        )
        ones = np.ones(int(several_W.sum()), dtype=np.int64)
        return each, np.concatenate([wells_T[:-1], ones])

    def tallied(
        self, number_W: Counts, size: int, chosen_W: Mask | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count the wells, and their images, that have each number below ``size``.

        Parameters
        ----------
        number_W : unsigned array of shape (n_wells,)
            A number of each well.
        size : int
            One more than the largest number.
        chosen_W : bool array of shape (n_wells,), optional
            Wells that count; all if left out.
        """
        wells_N, images_N = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        for rows in _stretches(len(number_W)):
            which = slice(None) if chosen_W is None else chosen_W[rows]
            number, images = number_W[rows][which], self.images_W[rows][which]
            wells_N += np.bincount(number, minlength=size)
            images_N += np.bincount(number, weights=images, minlength=size).astype(np.int64)
        return wells_N, images_N

    @cached_property
    def conditions(self) -> tuple[NDArray[np.uint32], int]:
        """Number the conditions: of each target, and how many there are."""
        texts = self.targets.select(as_text(CONDITION)).to_series()
        condition_T = numbered(texts)
        return condition_T.to_numpy(), condition_T.n_unique()


def numbered(texts: pl.Series) -> pl.Series:
    """Number equal texts, from 0 in the order in which they come; null stays null."""
    return texts.cast(pl.Categorical(pl.Categories.random())).to_physical()


def _stretches(n: int) -> Iterator[slice]:
    return (slice(start, start + _STRETCH) for start in range(0, n, _STRETCH))


def _joined(arrays: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays])

"""Step ``random``: numbers that know nothing of the cells, in the form of embeddings.

A baseline that goes through the same alignment and benchmarks as any encoder: what a method
makes of noise is not what theory says of it.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phenopipe.embed.config import RandomKnobs
from phenopipe.formats.embeddings import write_embeddings
from phenopipe.formats.wells import read_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.seeds import generator


def random_embeddings(
    well_ids: Sequence[str], dim: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw one standard normal vector a well, as one block: (n_wells, 1, dim)."""
    return rng.standard_normal((len(well_ids), 1, dim), dtype=np.float32)


def fingerprint_of(dim: int, seed: int) -> str:
    """Digest of the draw's settings: what stands for the encoder's fingerprint."""
    return hashlib.sha256(f"random {dim} {seed}".encode()).hexdigest()[:16]


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``embed_random``."""
    files, knobs = parse_step(
        RandomKnobs,
        inputs=["wells"],
        outputs=["embeddings"],
        names=["screen", "encoder", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    well_ids = read_wells(files.wells)["well_id"].to_list()
    rng = generator(knobs.seed, "random", files.screen, files.encoder, files.experiment)
    write_embeddings(
        files.embeddings,
        random_embeddings(well_ids, knobs.dim, rng),
        well_ids,
        block_numbers=[1],
        block_dims=[knobs.dim],
        stamp=files.stamp,
        attributes={
            "encoder": hashlib.sha256(f"random {knobs.dim} {knobs.seed}".encode()).hexdigest()[
                :16
            ],
            "trimmed": False,
        },
    )


if __name__ == "__main__":
    run_step(main)

"""One process, two with DDP, two with FSDP, and a change between them: how far apart?

    python benchmarks/processes.py

The trainings of ``tests/pretrain/test_distributed.py``: a small autoencoder in float32, 20
updates. With Lion, crops skip 0.6 of the blocks; with AdamW none.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.pretrain.conftest import make_screen
from tests.pretrain.test_distributed import (
    flipped_signs,
    legs_of,
    loss_apart,
    samples,
    train_all,
    weights_apart,
)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = train_all(make_screen(Path(name) / "screen"), Path(name))
        seen, wanted = samples(folder, *legs_of("lion")), samples(folder, "alone")
        tensors = weights_apart(folder, "adamw", *legs_of("adamw"))
        rows = [
            ("loss, 2 processes DDP against 1", loss_apart(folder, "alone", "ddp"), 1e-4),
            ("loss, 2 processes FSDP against 1", loss_apart(folder, "alone", "fsdp"), 1e-4),
            (
                "loss, batch in two parts against whole",
                loss_apart(folder, "alone", "pieces"),
                1e-4,
            ),
            (
                "loss, 2 to 1 to 2 against 1, Lion",
                loss_apart(folder, "alone", *legs_of("lion")),
                1e-4,
            ),
            ("samples that differ", len(seen.items() ^ wanted.items()), 0),
            (
                "signs flipped, 2 to 1 to 2, Lion",
                flipped_signs(folder, "alone", *legs_of("lion")),
                0.02,
            ),
            ("signs flipped, DDP, Lion", flipped_signs(folder, "alone", "ddp"), 0.02),
            ("weights of a tensor, 2 to 1 to 2, AdamW", max(tensors.values()), 1e-4),
            (
                "classifier: loss, 2 processes against 1",
                loss_apart(folder, "judge-1", "judge-2"),
                1e-4,
            ),
        ]
    for title, figure, bound in rows:
        verdict = "" if figure <= bound else "   NOT KEPT"
        print(f"{title:45s} {figure:10.2e} {'relative':8s} <= {bound:g}{verdict}")
    sys.exit(0 if all(figure <= bound for _, figure, bound in rows) else 1)


if __name__ == "__main__":
    main()

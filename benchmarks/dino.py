"""Does a student learn simulated cells from its own mean? The same figures for an autoencoder.

    python benchmarks/dino.py --cores 2

Trains kinds ``dino`` and ``mae`` of one size on all wells of the demo's screen, about five
minutes of a core each, and probes every block of both, and of the student's network with
random weights, for gene groups of the demo's probe. One line a figure: name, figure, and of
the student its bound. Exits with 1 if a bound is not kept.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch
import yaml

from phenopipe.classifier import bootstrap_accuracies
from phenopipe.encoders.folder import load_encoder
from phenopipe.formats.embeddings import read_block
from phenopipe.pretrain.dino_losses import effective_rank
from phenopipe.seeds import generator

ROOT = Path(__file__).parents[1]
ENCODERS = ("dino", "mae", "untrained")
NETWORK = {"crop": 32, "patch": 4, "dim": 64, "depth": 4, "heads": 4, "layer_scale": 0.1}
DINO = {
    **NETWORK,
    "small_crop": 16,
    "batch": 32,
    "lr": 5.0e-4,
    # A short training: few prototypes, a teacher that keeps up, sharp targets from the start.
    "prototypes": 256,
    "head_dim": 256,
    "head_features": 64,
    "momentum": [0.9, 1.0],
    "teacher_temperature": [0.04, 0.04],
    "measure_every": 50,
    "checkpoint_every": 200,
}
# Five and a half minutes of a core, and the demo's own autoencoder: four.
UPDATES = {"dino": 600, "mae": 6000}
RANK_BOUND = 0.1
BOOTSTRAPS = 2000


def config_of(demo):
    """Return the demo cut down to its screen, its probe, and the encoders compared."""
    own = {"manifest": "all"}
    encoders = {
        "dino": {"kind": "dino", **own, **DINO, "updates": UPDATES["dino"]},
        "mae": {"kind": "mae", **own, **demo["pretrain"]["mae"], "updates": UPDATES["mae"]},
        # One update that moves nothing.
        "untrained": {"kind": "dino", **own, **DINO, "updates": 1, "lr": 1.0e-12},
    }
    probe = {**demo["probes"]["anax"], "encoders": list(ENCODERS)}
    return {
        **{key: demo[key] for key in ("seed", "undersample")},
        "screens": {"simulated": demo["screens"]["simulated"]},
        "manifests": {"all": demo["manifests"]["all"]},
        "encoders": encoders,
        "probes": {"anax": probe},
    }


def run(folder, cores):
    """Run the workflow as far as the probes."""
    folder.mkdir(parents=True, exist_ok=True)
    demo = yaml.safe_load((ROOT / "workflow_config.yaml").read_text())
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config_of(demo), sort_keys=False))
    command = [sys.executable, "-m", "snakemake", "probe"]
    command += ["--profile", str(ROOT / "profiles" / "local"), "--cores", str(cores)]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "--configfile", str(path)], check=True, env=environment)


def ranks(folder, encoder):
    """Effective rank of the embeddings of all wells of an experiment, block by block."""
    stores = sorted((folder / f"results/embed/simulated/{encoder}").glob("*.zarr"))
    depth = len(load_encoder(folder / f"results/encoders/{encoder}").block_dims)
    found = []
    for block in range(1, depth + 1):
        x_WD = read_block(stores[0], block)
        whole = np.isfinite(x_WD).all(axis=1)
        found.append(effective_rank(torch.from_numpy(x_WD[whole])))
    return found


def predictions(folder, encoder):
    """Predictions of every block, with the wells in a fixed order."""
    path = folder / f"results/probe/{encoder}/anax/predictions.parquet"
    return pl.read_parquet(path).sort("block", "well_id")


def best_of(folder, encoder):
    """Block of the highest balanced accuracy, and its accuracy."""
    table = pl.read_parquet(folder / f"results/probe/{encoder}/anax/blocks.parquet")
    rows = table.filter(pl.col("metric") == "balanced_accuracy").sort("block")
    at = rows["value"].arg_max()
    return int(rows["block"][at]), float(rows["value"][at])


def gain(folder, encoder, base):
    """Ends of the paired interval of one best block's accuracy over another's."""
    sides = []
    for name in (encoder, base):
        block, _ = best_of(folder, name)
        sides.append(predictions(folder, name).filter(pl.col("block") == block))
    assert sides[0]["well_id"].equals(sides[1]["well_id"])
    drawn = bootstrap_accuracies(
        sides[0]["label"].to_numpy().astype(str),
        np.stack([side["predicted"].to_numpy().astype(str) for side in sides]),
        bootstraps=BOOTSTRAPS,
        rng=generator(0, "benchmark"),
    )
    return np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975])


def told(folder):
    """Print every figure; return whether the student keeps all bounds."""
    kept = []
    for encoder in ("dino", "mae"):
        bounds = encoder == "dino"
        history = pl.read_parquet(folder / f"results/pretrain/{encoder}/history.parquet")
        tenth = max(1, history.height // 10)
        first, last = (
            float(part["loss"].mean()) for part in (history.head(tenth), history.tail(tenth))
        )
        line = f"{encoder}: loss, first and last tenth: {first:.3f}, {last:.3f}"
        print(line + (", bound: falls" if bounds else ""))
        for name in ("held_out_loss", "held_out_told", "held_out_rank"):
            if name in history.columns:
                looks = history[name].drop_nulls()
                some = [looks[0], looks[len(looks) // 2], looks[-1]]
                shown = ", ".join(f"{value:.3f}" for value in some)
                print(f"{encoder}: {name}, first, middle, last look: {shown}")
        found, least = ranks(folder, encoder), RANK_BOUND * NETWORK["dim"]
        listed = ", ".join(f"{rank:.1f}" for rank in found)
        line = f"{encoder}: rank of wells (of {NETWORK['dim']}), block by block: {listed}"
        print(line + (f", bound of the last: {least:.1f}" if bounds else ""))
        (block, accuracy), (base_block, base) = (
            best_of(folder, name) for name in (encoder, "untrained")
        )
        low, high = gain(folder, encoder, "untrained")
        print(
            f"{encoder}: probe's best block {block}: {accuracy:.3f}, untrained (block "
            f"{base_block}) {base:.3f}, gain {accuracy - base:.3f} [{low:.3f}, {high:.3f}]"
            + (", bound: above 0" if bounds else "")
        )
        if bounds:
            kept += [last < first, found[-1] > least, low > 0.0]
    return all(kept)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "dino")
    parser.add_argument("--cores", type=int, default=2)
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    run(folder, chosen.cores)
    sys.exit(0 if told(folder) else 1)


if __name__ == "__main__":
    main()

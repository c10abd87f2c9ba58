"""An autoencoder learns: masked error on images that it never saw, against predicting the mean.

    python benchmarks/learning.py --simulated --field FOLDER

``--simulated`` trains on all wells of the demo's screen, a little longer and wider than the
demo can. FOLDER holds one real field of six 16-bit PNG files, `*_ch1.png` to `*_ch6.png`: it
is cut into tiles, which go through the workflow (`configs/field.yaml`). As the models of the
paper take 8 bits, each channel is scaled so that its darkest and brightest thousandth of the
field are clipped. Both end with a page that shows what was painted, `index.html` in the
folder `results/report` of each. ``--results`` instead reads what a finished run of any
configuration painted. The error is divided by that of predicting each channel's mean, since
dim channels keep a variance below 1 (1e-5 is added to it). One line a figure: name, figure,
unit, bound. Exits with 1 if a bound is not kept.
"""

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from imagecodecs import imread, imwrite

ROOT = Path(__file__).parents[1]
TILES = 8
CLIPPED = 1e-3
FIELD_BOUND, SIMULATED_BOUND = 0.85, 0.7
# Beside the demo's own settings of its autoencoders. Noise of single pixels, which nobody can
# foresee, is 0.4 of the variance of these images.
LEARNER = {"dim": 128, "decoder_dim": 64, "decoder_depth": 2, "batch": 32, "updates": 4000}


def to_8_bits(image):
    """Scale one channel of a field, its darkest and brightest thousandth clipped."""
    low, high = np.quantile(image, [CLIPPED, 1 - CLIPPED])
    return np.clip((image - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)


def cut(field, folder):
    """Write the tiles of a field and the table that names them."""
    found = [sorted(field.glob(f"*_ch{number}.png")) for number in range(1, 7)]
    if not all(found):
        sys.exit(f"{field}: wanted *_ch1.png to *_ch6.png")
    channels = [to_8_bits(imread(str(paths[0]))) for paths in found]
    folder.mkdir(parents=True, exist_ok=True)
    height, width = (side // TILES for side in channels[0].shape)
    rows = []
    for site in range(TILES * TILES):
        top, left = site // TILES * height, site % TILES * width
        row = {"plate": "P1", "well": "C03", "site": site + 1}
        row |= {"role": "untreated", "perturbation": "untreated"}
        for number, image in enumerate(channels, start=1):
            row[f"ch{number}"] = f"{site + 1:02d}_ch{number}.png"
            tile = np.ascontiguousarray(image[top : top + height, left : left + width])
            imwrite(str(folder / row[f"ch{number}"]), tile)
        rows.append(row)
    with (folder / "tiles.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def simulated():
    """Return the demo cut down to its screen and one autoencoder of all wells."""
    demo = yaml.safe_load((ROOT / "workflow_config.yaml").read_text())
    encoder = {"kind": "mae", "manifest": "all", **demo["pretrain"]["mae"], **LEARNER}
    return {
        **{key: demo[key] for key in ("seed", "undersample")},
        "screens": {"simulated": demo["screens"]["simulated"]},
        "manifests": {"all": demo["manifests"]["all"]},
        "encoders": {"mae": encoder},
    }


def run(folder, cores, config, *settings):
    """Run the workflow as far as its page; return the path of what was painted."""
    command = [sys.executable, "-m", "snakemake", "--profile", str(ROOT / "profiles" / "local")]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--cores", str(cores)]
    command += ["--directory", str(folder), "report", "--configfile", str(config), *settings]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment, cwd=ROOT)
    return folder / "results" / "pretrain" / "mae" / "reconstructions.npz"


def told(path, bound):
    """Print the error of what was painted; return whether it is within the bound."""
    with np.load(path) as arrays:
        shown, painted, mask = (arrays[name] for name in ("input", "output", "mask"))
        number = len(arrays["l2"])
    error, of_mean = (float((x**2 * mask).sum() / mask.sum()) for x in (shown - painted, shown))
    print(
        f"masked error of {path.parent.name}: {error / of_mean:.3f} of predicting the mean "
        f"({error:.3f} of {of_mean:.3f}; {len(shown)} of {number} held-out images), "
        f"bound {bound}",
        flush=True,
    )
    return error / of_mean <= bound


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulated", action="store_true", help="train on simulated cells")
    parser.add_argument("--field", type=Path, help="folder of the real field")
    parser.add_argument("--results", type=Path, nargs="*", default=[], help="folders of runs")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "learning")
    parser.add_argument("--cores", type=int, default=1)
    chosen = parser.parse_args()
    folder, kept = chosen.folder.resolve(), []
    if chosen.simulated:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "simulated.yaml"
        config.write_text(yaml.safe_dump(simulated(), sort_keys=False))
        painted = run(folder / "simulated", chosen.cores, config)
        kept.append(told(painted, SIMULATED_BOUND))
    if chosen.field:
        cut(chosen.field, folder / "tiles")
        config = ROOT / "configs" / "field.yaml"
        data = ("--config", f"data={folder / 'tiles'}")
        painted = run(folder / "field", chosen.cores, config, *data)
        kept.append(told(painted, FIELD_BOUND))
    for results in chosen.results:
        for painted in sorted(results.glob("pretrain/*/reconstructions.npz")):
            kept.append(told(painted, SIMULATED_BOUND))
    sys.exit(0 if kept and all(kept) else 1)


if __name__ == "__main__":
    main()

"""Stage pretrain: train an encoder on the images of a manifest, or on labels.

    in     results/phenoprints/{manifest}/manifest.parquet
           results/screen/{screen}/{experiment}/images.parquet, images.zarr
           results/encoders/{start}/ of the encoder to start from, if any
    out    results/encoders/{encoder}/model.safetensors, config.json, README.md
           results/pretrain/{encoder}/history.parquet, reconstructions.npz
    paper  3.2, A.2, A.9

Training can be killed at any moment: what runs next continues from the last checkpoint
and ends with the same weights, because every random draw is a function of the seed, the
epoch and the place in it, never of what was drawn before.
"""

"""Stage export: how do other tools read what we made?

Reads aligned wells, maps and manifests. Writes AnnData (``.h5ad``, ``.zarr``), wide parquet
with ``Metadata_`` columns as pycytominer and copairs take it, the Cell Painting Gallery's
tree, and flat manifests, under ``results/export/``. Encoders need none of this: timm opens
their folders.
"""

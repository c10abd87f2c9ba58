"""Which block of an encoder separates biology best? See paper 4, A.4 and A.5.

in     embed/{screen}/{encoder}/{experiment}.zarr, qc/{screen}/{experiment}/wells.parquet,
       a table of gene groups
out    probe/{encoder}/{task}/: blocks.parquet, best_block.json, predictions.parquet;
       encoders/{trimmed encoder}/
"""

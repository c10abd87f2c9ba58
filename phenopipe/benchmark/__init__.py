"""How good is the map? See paper 5, 6, A.6 and A.7.

    in     align/{screen}/{encoder}/{experiment}/embeddings.parquet, arms.parquet,
           screen/{screen}/interactions.parquet, files of known pairs
    out    benchmark/{benchmark}/{encoder}/: map, neighbours, recall, replicates,
           magnitude, compounds (tidy results; the tables behind them beside each)

Aligned wells are read by :mod:`phenopipe.benchmark.treated`; every step measures one thing.
"""

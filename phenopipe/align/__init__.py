"""What of an embedding is batch effect? Paper 3.1, 5, 6 and A.6.

In: the last block of every experiment's embeddings, and the wells that pass qc. Each
experiment is reduced to the moments of its controls (``moments.npz``) and, where centres come
from all wells, to middles (``middles.npz``), by a job of its own; what all share is fitted on
these alone. Out: ``transform.npz``, ``controls.parquet`` (what each experiment's controls can
tell), each experiment's aligned wells (its own controls give its centre and its spread),
``measures.parquet`` (before and after), and ``arms.parquet`` (what the chromosome arm of a
knocked-out gene adds).
"""

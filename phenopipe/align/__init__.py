"""What of an embedding is batch effect? Paper 3.1, 5, 6 and A.6.

In: the last block of every experiment's embeddings, and the wells that pass qc. Out:
``transform.npz`` (what is fitted on the controls of all experiments), each experiment's
aligned wells (its own controls give its centre and its spread), and ``arms.parquet`` (what
the chromosome arm of a knocked-out gene adds).
"""

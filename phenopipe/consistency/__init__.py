"""Which conditions change the cells the same way every time? Paper A.3.

In: the aligned wells of one experiment. Out: ``pvalues.parquet``, a permutation p-value for
each condition and each gene with at least two replicates in the experiment. Only wells with
a single perturbation count, and conditions are compared within their map type.
"""

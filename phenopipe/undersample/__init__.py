"""Which conditions have enough replicates, and how many controls stay? Paper A.1.

In: the qc stage's wells of all experiments of a manifest. Out: the wells that are left, and
the funnel of what each step of the curation took. Steps 3 and 4 of A.1;
the funnel counts steps 1 and 2 too, from the flags that qc set.
"""

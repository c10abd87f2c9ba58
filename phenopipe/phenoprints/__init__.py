"""Which wells make the training set? Paper 3.1 and A.1 step 5.

In: the undersample stage's wells, and the p-values of every judge and experiment. Out: one
combined p-value a judge, map type, level and condition; the manifest with what saved each
of its wells; and the funnel, with what other choices would have kept.
"""

"""Which images and wells can be trusted? Paper A.1, steps 1 and 2.

In: wells, images and pixels (or profiles) of one experiment. Out: the defects of the whole
screen, found before any expensive step; the metrics of every site; and the wells with one
flag a test, the score behind it, its limit, and the reason.
"""

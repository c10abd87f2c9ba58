"""What was done to which well, and where are its pixels?

In: a public layout (one adapter a file), a table of image files, a table of profiles, or
nothing (simulator). Out: wells, images and pixels of one experiment; the screen's genes and
interactions. Paper 3.1.
"""

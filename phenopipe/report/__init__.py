"""What did we learn? See all figures and tables of the paper.

Files in: every tidy table of the other stages, pixels for thumbnails, the planted truth of
a simulated screen. Files out: ``results/report/index.html``, one file that opens offline,
and ``results/report/truth.parquet``.
"""

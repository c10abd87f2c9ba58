"""Steps 1 to 4 of the curation as one query of DuckDB; ``curation_at_scale.py`` starts it.

Needs nothing but Python and DuckDB. The wells with one condition are joined without their
ids and only the others by them, which is the quicker of the ways that were tried.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

QUERY = """
with known as (
  select screen, experiment, plate, well, "row", "column", cell_type, role, treatments, layout,
    well_id, n_images, conditions, case when len(treatments) > 1
      and len(list_filter(treatments, lambda x: x.kind <> 'soluble_factor')) > 0
      then list_filter(treatments, lambda x: x.kind <> 'soluble_factor') else treatments
      end as applied
  from read_parquet('{files}')
  where not (fails_focus or fails_dead or fails_artefact or fails_assay or fails_size
    or fails_perturbation_missing or fails_perturbations)),
singles as (select *, applied[1] as t from known where len(applied) = 1),
several as (select *, unnest(applied) as t from known where len(applied) > 1),
each as (
  select t.kind as k, t.perturbation as p, coalesce(t.concentration_um, -1) as c, experiment
    from singles
  union all select k, p, c, experiment from (select distinct t.kind as k,
    t.perturbation as p, coalesce(t.concentration_um, -1) as c, experiment, well_id
    from several)),
enough as (select k, p, c from each group by k, p, c
  having count(*) >= 20 and count(distinct experiment) >= 3),
kept as (
  select * exclude (applied, t) from singles s
    where role in ('negative_control', 'empty') or exists (select 1 from enough e where
      e.k = s.t.kind and e.p = s.t.perturbation and e.c = coalesce(s.t.concentration_um, -1))
  union all select * exclude (applied) from known where len(applied) > 1 and (
    role in ('negative_control', 'empty') or well_id in (select well_id from several s
      join enough e on e.k = s.t.kind and e.p = s.t.perturbation
      and e.c = coalesce(s.t.concentration_um, -1)))
  union all select * exclude (applied) from known
    where len(applied) = 0 and role in ('negative_control', 'empty'))
"""
DRAW = """
select * from kept where case role when 'positive_control' then hash(well_id) % 100 < 10
  when 'empty' then hash(well_id) % 100 < 10
  when 'negative_control' then hash(well_id) % 100 < 30 else true end
"""


def curate(folder, rows):
    """The same wells by one query over the same nested files, without the funnel."""
    try:
        import duckdb
    except ImportError:
        sys.exit("duckdb is not installed here: pip install duckdb==2.0.0")
    query = QUERY.format(files=f"{folder}/{rows}/*/wells.parquet")
    database = duckdb.connect()
    database.execute("set threads=2; set memory_limit='8GB'")
    database.execute("set preserve_insertion_order=false")
    database.execute(f"set temp_directory='{folder}/duckdb-spill'")
    out = folder / "duckdb.parquet"
    start = time.perf_counter()
    database.execute(
        f"copy ({query} {DRAW}) to '{out}' (format parquet, compression zstd)"
    ).fetchone()
    seconds = time.perf_counter() - start
    # The draw is by another hash, so that the wells before it are what must agree.
    replicated = None
    if rows <= 5_000_000:
        (replicated,) = database.execute(f"{query} select count(*) from kept").fetchone()
    return {"seconds": seconds, "replicated": replicated}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--task", choices=("duckdb",), default="duckdb")
    given = parser.parse_args()
    figures = curate(given.folder, given.rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({**figures, "peak": peak}))

"""Profiles become one block, in the order of the wells."""

import numpy as np
import polars as pl

from phenopipe.embed.profiles import profiles_as_embeddings


def test_features_follow_the_order_of_the_wells_and_absent_wells_are_nan():
    wells = pl.DataFrame({"well_id": ["w0", "w1", "w2"]})
    profiles = pl.DataFrame({"well_id": ["w2", "w0"], "x": [1.0, 2.0], "y": [3.0, 4.0]})
    found = profiles_as_embeddings(wells, profiles)
    assert found.shape == (3, 1, 2) and found.dtype == np.float32
    assert found[0, 0].tolist() == [2.0, 4.0] and found[2, 0].tolist() == [1.0, 3.0]
    assert np.isnan(found[1]).all()

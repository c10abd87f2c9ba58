"""What a training asks of SLURM; that it gets it is shown on a real one (tests/slurm)."""

import pytest

from phenopipe.errors import UserError
from phenopipe.pretrain.launch import EXIT_REQUEUE
from phenopipe.pretrain.nodes import NODES, nodes_asked, rendezvous, start_steps


def test_without_slurm_nothing_is_asked(monkeypatch):
    monkeypatch.delenv(NODES, raising=False)
    assert nodes_asked() == 0
    monkeypatch.setenv(NODES, "0")
    assert nodes_asked() == 0


def test_nodes_outside_a_job_are_a_mistake(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv(NODES, "2")
    with pytest.raises(UserError, match="within a SLURM job only"):
        nodes_asked()
    monkeypatch.setenv(NODES, "two")
    with pytest.raises(UserError, match="wanted a number of nodes"):
        nodes_asked()


def test_launchers_meet_at_the_first_node_in_the_order_of_nodes(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "41234")
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.7")
    monkeypatch.setenv("SLURM_NODEID", "2")
    settings = rendezvous(3)
    assert settings["rdzv_endpoint"] == "10.0.0.7:21234"
    assert settings["rdzv_configs"]["rank"] == 2
    # No fewer nodes and no more: a world of another size never starts.
    assert settings["min_nodes"] == settings["max_nodes"] == 3


def test_processes_that_nodes_cannot_share_are_a_mistake():
    with pytest.raises(UserError, match="3 processes cannot be shared equally by 2 nodes"):
        start_steps(2, 3, "phenopipe.pretrain.mae", [], EXIT_REQUEUE)

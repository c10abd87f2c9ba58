import json
import pickle

import pytest
import torch
from torch import nn

from phenopipe.errors import UserError
from phenopipe.pretrain.config import TrainingKnobs
from phenopipe.pretrain.states import (
    PART,
    States,
    difference,
    prime,
    training_facts,
    training_fingerprint,
    training_tensors,
)


def tensors(value):
    return {"a": torch.full((3, 2), float(value)), "b": torch.full((1,), int(value))}


def load(folder, facts=None):
    found = tensors(-1)
    contents = States(folder, facts).load(found)
    return contents and (contents["update"], float(found["a"].max()), int(found["b"]))


def save(folder, *updates, facts=None, kept=2):
    states = States(folder, facts, kept=kept)
    for update in updates:
        states.save(update, tensors(update), {})
    states.finish()
    return states.paths()


def test_last_states_are_kept_and_the_newest_whole_one_is_read(tmp_path):
    paths = save(tmp_path, 1, 2, 3)
    assert [path.name for path in paths] == ["update-000000002", "update-000000003"]
    assert load(tmp_path) == (3, 3.0, 3)


@pytest.mark.parametrize("damage", ["cut", "gone", "no facts", "half facts"])
def test_damaged_state_is_passed_over(tmp_path, damage):
    *_, newest = save(tmp_path, 1, 2)
    (file,) = newest.glob("*.safetensors")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-4])
    if damage == "gone":
        file.unlink()
    if damage == "no facts":
        (newest / "state.json").unlink()
    if damage == "half facts":
        (newest / "state.json").write_text('{"training": {')
    assert load(tmp_path) == (1, 1.0, 1)
    # The place of a state that is no good can be taken again.
    save(tmp_path, 2)
    assert load(tmp_path) == (2, 2.0, 2)


def test_state_under_way_is_never_loaded_and_its_remains_go(tmp_path):
    (path,) = save(tmp_path, 1)
    part = path.with_name(f".update-000000002{PART}")
    path.rename(part)
    assert load(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_training_goes_on_while_its_state_is_written(tmp_path):
    states, now = States(tmp_path), tensors(1)
    states.save(1, now, {})
    now["a"].fill_(99.0)
    states.finish()
    assert load(tmp_path) == (1, 1.0, 1)


def test_state_of_another_training_is_refused_with_the_difference(tmp_path):
    stamp = {"step": "mae", "knobs": {"lr": 1e-3}, "inputs": {"manifest": ["one"]}}
    facts = training_facts(stamp)
    save(tmp_path, 1, facts=facts)
    assert load(tmp_path, facts) == (1, 1.0, 1)
    other = training_facts({**stamp, "knobs": {"lr": 2e-3}})
    with pytest.raises(UserError, match=r"another training, knobs.lr is 0.001 there and 0.002"):
        load(tmp_path, other)
    other = training_facts({**stamp, "inputs": {"manifest": ["two"]}})
    with pytest.raises(UserError, match=r"inputs.manifest is \['one'\] there and \['two'\]"):
        load(tmp_path, other)


def test_another_training_that_left_states_is_named_with_the_difference(tmp_path):
    stamp = {"step": "mae", "knobs": {"lr": 1e-3}, "inputs": {"manifest": ["one"]}}
    other = {**stamp, "knobs": {"lr": 2e-3}}
    knobs = TrainingKnobs(checkpoints=str(tmp_path))
    theirs, ours = (States.of("mae", one, knobs) for one in (stamp, other))
    save(theirs.folder, 1, facts=theirs.facts)
    save(tmp_path / "mae-all-0123", 1, facts=theirs.facts)
    (line,) = ours.others()
    assert line == f"{theirs.paths()[0]}: knobs.lr is 0.001 there and 0.002 here"
    assert not theirs.others()


def test_nothing_in_a_state_is_a_pickle(tmp_path):
    (path,) = save(tmp_path, 1)
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}

    (file,) = path.glob("*.safetensors")
    (path / ".metadata").write_bytes(b"cos\nabort\n(tR.")
    file.write_bytes(pickle.dumps({"a": 1}))
    assert load(tmp_path) is None


def test_fingerprint_knows_what_decides_the_weights():
    stamp = {
        "step": "mae",
        "knobs": {"lr": 1, "memory_mb": 5, "parallel": "ddp", "micro_batch": 1},
        "inputs": {"images": ["a", "b"]},
    }
    same = {
        "step": "mae",
        "knobs": {"lr": 1, "memory_mb": 9, "parallel": "fsdp", "micro_batch": 2},
        "inputs": {"images": ["b", "a"]},
    }
    other = {**stamp, "knobs": {**stamp["knobs"], "lr": 2}}
    assert training_fingerprint(stamp) == training_fingerprint(same)
    assert training_fingerprint(stamp) != training_fingerprint(other)
    assert difference({"a": 1}, {"a": 1, "b": 2}) == "b is 2 there and None here"
    assert json.loads(json.dumps(training_facts(stamp))) == training_facts(stamp)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_priming_makes_the_optimizers_tensors_and_moves_no_weight(kind):
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    settings = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(model.parameters(), lr=0.1, **settings)
    prime(optimizer)
    assert torch.equal(model.weight, before)
    assert any(name.startswith("optimizer.") for name in training_tensors(model, optimizer))
    assert optimizer.param_groups[0]["lr"] == 0.1 and model.weight.grad is None

"""Weights from elsewhere, made to fit: names, number of channels, positions."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from phenopipe.errors import UserError, reason

State = dict[str, Tensor]
WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")


def find_in_package(package: str) -> Path:
    """Find the one file of weights that an installed package carries.

    Raises
    ------
    UserError
        If the package is not installed or does not hold exactly one such file.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"package {package!r} is not installed, wanted extra 'pretrained' of phenopipe"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(p for p in folder.rglob("*") if p.suffix in (".pth", ".pt", ".safetensors"))
    if len(found) != 1:
        raise UserError(f"package {package!r} holds {len(found)} files of weights, wanted one")
    return found[0]


def find_weights(path: Path) -> Path:
    """Return the file of weights: the path itself, or the one in a folder of the hub's layout.

    Raises
    ------
    UserError
        If the folder holds none.
    """
    if not path.is_dir():
        return path
    for name in WEIGHT_NAMES:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path}: no file of weights, wanted one of {', '.join(WEIGHT_NAMES)}")


def check_sha256(path: Path, wanted: str) -> None:
    """Refuse a file whose checksum is another.

    Raises
    ------
    UserError
        With both checksums.
    """
    found = sha256_of(path)
    if found != wanted:
        raise UserError(f"{path}: sha256 {found}, wanted {wanted}")


def sha256_of(path: Path) -> str:
    """Checksum of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as ``torch.save`` begins one, whatever its name says."""
    with path.open("rb") as handle:
        return handle.read(4) == b"PK\x03\x04"


def read_weights(path: Path) -> State:
    """Read tensors from a safetensors file or a torch file, never running code from it.

    The content decides which of the two it is, not the name: published files called
    ``model.safetensors`` were seen that ``torch.save`` had written.

    Raises
    ------
    UserError
        If the file is neither, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors" and not is_torch_file(path):
            return dict(load_file(path))
        # A handle, since torch too would go by the name.
        with path.open("rb") as handle:
            content = torch.load(handle, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path}: no readable weights ({reason(error)})") from None
    except Exception as error:  # the unpickler refuses in its own ways
        raise UserError(
            f"{path}: refused, holds more than tensors ({type(error).__name__})"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, wanted tensors by name")
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def named_as_timm(state: State, architecture: str, where: Path) -> State:
    """Give tensors timm's names by their order, where every shape agrees.

    Raises
    ------
    UserError
        If the number of tensors or a shape differs from timm's whole model.
    """
    with torch.device("meta"):
        wanted = timm.create_model(architecture).state_dict()
    if len(wanted) != len(state):
        raise UserError(
            f"{where}: {len(state)} tensors, wanted the {len(wanted)} of {architecture}"
        )
    named = {}
    for (name, like), (found, value) in zip(wanted.items(), state.items(), strict=True):
        if like.shape != value.shape:
            raise UserError(
                f"{where}: tensor {found!r} has shape {tuple(value.shape)}, "
                f"wanted {tuple(like.shape)} of {name!r}"
            )
        named[name] = value
    return named


def fit_weights(model: nn.Module, state: State, where: Path) -> None:
    """Load weights into a model of another number of channels, crop size or no head.

    First convolutions are repeated over channels and rescaled, as timm does; positions
    of vision transformers are interpolated; tensors of a head or decoder that the model
    lacks go.

    Raises
    ------
    UserError
        If a tensor that the model needs is absent or of another shape, or the file has
        further ones of a part that the model has, such as later blocks.
    """
    model_any: Any = model
    first = model_any.default_cfg.get("first_conv")
    names = [first] if isinstance(first, str) else list(first or ())
    for name in names:
        key = f"{name}.weight"
        if key in state:
            in_chans = model.state_dict()[key].shape[1]
            state = {**state, key: adapt_input_conv(in_chans, state[key])}
    if isinstance(model, VisionTransformer):
        state = checkpoint_filter_fn(state, model, interpolation="bicubic", antialias=True)
    wanted = model.state_dict()
    for name, like in wanted.items():
        if name not in state:
            raise UserError(f"{where}: no tensor {name!r}, wanted by the model")
        if state[name].shape != like.shape:
            raise UserError(
                f"{where}: tensor {name!r} has shape {tuple(state[name].shape)}, "
                f"wanted {tuple(like.shape)}"
            )
    parts = {name.partition(".")[0] for name in wanted}
    for name in state.keys() - wanted.keys():
        if name.partition(".")[0] in parts:
            raise UserError(f"{where}: tensor {name!r} has no place in the model")
    model.load_state_dict({name: state[name] for name in wanted})

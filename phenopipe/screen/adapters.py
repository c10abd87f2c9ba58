"""Adapters of the public layouts, by the source that a screen names."""

from types import ModuleType

from phenopipe.screen import jump, ome_zarr, rxrx1, rxrx3, rxrx3_core

ADAPTERS: dict[str, ModuleType] = {
    "rxrx1": rxrx1,
    "rxrx3": rxrx3,
    "rxrx3_core": rxrx3_core,
    "jump": jump,
    "ome_zarr": ome_zarr,
}

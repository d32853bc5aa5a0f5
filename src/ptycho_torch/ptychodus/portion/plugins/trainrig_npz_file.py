"""A Ptychodus file reader for the canonical NPZ: counts, positions in pixels, probe, object.

Found by Ptychodus when this folder's parent is on ``ptychodus.__path__``, which the launcher
``python -m ptycho_torch.ptychodus`` sees to. Geometry that the file does not hold is the default of
``ptycho_torch.data.product_files.FarField``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ptychodus.api.diffraction import (
    DiffractionDataset,
    DiffractionDatasetLayoutNode,
    DiffractionFileReader,
    DiffractionMetadata,
    SimpleDiffractionArray,
    SimpleDiffractionDataset,
)
from ptychodus.api.geometry import ImageExtent, PixelGeometry
from ptychodus.api.object import Object, ObjectCenter
from ptychodus.api.plugins import PluginRegistry
from ptychodus.api.probe import ProbeSequence
from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
from ptychodus.api.product import Product, ProductFileReader, ProductMetadata

from ptycho_torch.data.product_files import FarField
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.raw_data import RawDataTorch


class CanonicalDiffractionReader(DiffractionFileReader):
    """Amplitudes squared and rounded: the counts that Ptychodus works on."""

    def read(self, file_path: Path) -> DiffractionDataset:
        """Read one file."""
        scan = RawDataTorch.from_file(file_path)
        counts = np.rint(np.square(np.asarray(scan.diff3d, np.float64)))
        counts = counts.astype(np.uint16 if counts.max() < 2**16 else np.uint32)
        geometry = FarField()
        metadata = DiffractionMetadata(
            num_patterns_per_array=[len(scan)],
            pattern_dtype=counts.dtype,
            detector_extent=ImageExtent(scan.N, scan.N),
            detector_distance_m=geometry.distance_m,
            detector_pixel_geometry=PixelGeometry(
                geometry.detector_pixel_m, geometry.detector_pixel_m
            ),
            photon_energy_eV=geometry.energy_ev,
            file_path=file_path,
        )
        tree = DiffractionDatasetLayoutNode.create_root()
        tree.add_child(file_path.stem, "ndarray", f"{counts.dtype}{counts.shape}")
        array = SimpleDiffractionArray(file_path.stem, np.arange(len(scan)), counts)
        return SimpleDiffractionDataset(metadata, tree, [array])


class CanonicalProductReader(ProductFileReader):
    """Positions, probe and object with a centre, so that pixels map back exactly."""

    def read(self, file_path: Path) -> Product:
        """Read one file."""
        scan = RawDataTorch.from_file(file_path)
        geometry = FarField()
        pixel = geometry.object_pixel_m(scan.N)
        shape = None if scan.objectGuess is None else scan.objectGuess.shape
        grid = Grid.of(scan.coords, scan.N, shape)
        obj = np.ones(grid.shape, np.complex64) if shape is None else scan.objectGuess
        half = (np.array(grid.shape[::-1]) - 1) / 2
        metres = (grid.pixels(scan.coords) - half) * pixel
        points = [ProbePosition(i, float(x), float(y)) for i, (x, y) in enumerate(metres)]
        square = PixelGeometry(pixel, pixel)
        energy = np.square(np.asarray(scan.diff3d, np.float64)).sum((1, 2)).mean()
        metadata = ProductMetadata(
            name=file_path.stem,
            comments="",
            detector_distance_m=geometry.distance_m,
            photon_energy_eV=geometry.energy_ev,
            probe_photon_count=float(energy),
            exposure_time_s=0.0,
            mass_attenuation_m2_per_kg=0.0,
            tomography_angle_deg=0.0,
        )
        return Product(
            metadata=metadata,
            probe_positions=ProbePositionSequence(points),
            probes=ProbeSequence(
                array=scan.probe_modes[None], opr_weights=None, pixel_geometry=square
            ),
            object_=Object(
                array=np.asarray(obj)[None],
                pixel_geometry=square,
                center=ObjectCenter(0.0, 0.0),
                layer_spacing_m=[],
            ),
            losses=[],
        )


def register_plugins(registry: PluginRegistry) -> None:
    """Called by Ptychodus for every module of its ``plugins`` namespace."""
    names = {"simple_name": "Canonical_NPZ", "display_name": "Canonical ptychography (*.npz)"}
    registry.diffraction_file_readers.register_plugin(CanonicalDiffractionReader(), **names)
    registry.register_product_file_reader_with_adapters(CanonicalProductReader(), **names)

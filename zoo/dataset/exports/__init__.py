"""Export formats: what other tools read, written from a view without loss."""

from zoo.dataset.exports import hdf5, safetensors, small_cnn_zoo
from zoo.dataset.exports.base import EXPORTS, Export, ExportFormat

__all__ = ["EXPORTS", "Export", "ExportFormat", "hdf5", "safetensors", "small_cnn_zoo"]

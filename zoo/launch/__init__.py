"""Launching: worker processes on one machine, progress, status, calibration and reproduction."""

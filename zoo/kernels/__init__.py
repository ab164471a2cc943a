"""Fused operations over stacked models: one file per operation.

Each holds the plain-torch reference (``name_torch``), the Triton kernel and the function ``name``
that takes one or the other by the device of its arguments. Triton itself is optional.
"""

"""Reports: text tables, group statistics and the accuracy picture."""

from zoo.report.accuracy_plot import accuracy_plot
from zoo.report.groups import group_table
from zoo.report.pooling import pooled_fields
from zoo.report.tables import format_table, json_rows

__all__ = ["accuracy_plot", "format_table", "group_table", "json_rows", "pooled_fields"]

"""The store: one Zarr v3 group that is durable, checked, and readable while it is written.

``docs/store.md`` has the format and the protocol.
"""

from zoo.store.cohort_reader import CohortReader
from zoo.store.commits import Failure
from zoo.store.create import (
    create_store,
    extend_store,
    is_store,
    read_plan,
    read_provenance,
    read_sweep_text,
)
from zoo.store.data_paths import data_paths
from zoo.store.derived import DerivedColumn, derived_columns, publish, read_derived
from zoo.store.footprint import Footprint, footprint
from zoo.store.locks import claim_task
from zoo.store.planned import rewrite_planned
from zoo.store.reader import StoreReader
from zoo.store.repair import repair_added, repair_task
from zoo.store.stages import StageFolder, stage_id, stage_settings
from zoo.store.states import TaskState, task_states
from zoo.store.tables import (
    TableColumn,
    newest_table,
    publish_next,
    publish_table,
    read_table,
    table_names,
)
from zoo.store.verify import VerifyReport, content_hash, verify_store
from zoo.store.writer import TaskWriter

__all__ = [
    "CohortReader",
    "DerivedColumn",
    "Failure",
    "Footprint",
    "StageFolder",
    "StoreReader",
    "TableColumn",
    "TaskState",
    "TaskWriter",
    "VerifyReport",
    "claim_task",
    "content_hash",
    "create_store",
    "data_paths",
    "derived_columns",
    "extend_store",
    "footprint",
    "is_store",
    "newest_table",
    "publish",
    "publish_next",
    "publish_table",
    "read_derived",
    "read_plan",
    "read_provenance",
    "read_sweep_text",
    "read_table",
    "repair_added",
    "repair_task",
    "rewrite_planned",
    "stage_id",
    "stage_settings",
    "table_names",
    "task_states",
    "verify_store",
]

"""The composition root: importing it fills every registry that a run spec's fields are read by.

Registries that only rooms above the spec ask for, such as those of landscape metrics and exports,
are filled by the import of their own room.
"""

import zoo.architectures
import zoo.data
import zoo.diets
import zoo.objectives
import zoo.optim
import zoo.train  # noqa: F401 - the imports are the point

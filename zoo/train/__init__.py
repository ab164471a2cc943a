"""Training: plan, stacked engine, reference; importing this registers schedules and precisions."""

from zoo.train import backends, schedule

__all__ = ["backends", "schedule"]

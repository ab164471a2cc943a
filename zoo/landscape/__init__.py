"""Loss-landscape metrics, one file a metric, batched over the slab."""

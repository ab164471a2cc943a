"""The fields that every run has; all others are declared by the entries that read them."""

from __future__ import annotations

from zoo.fields import Field, named
from zoo.registry import declare
from zoo.spec.limits import MAX_EPOCHS, MAX_EXAMPLES, MAX_STEPS, MAX_WIDTH

__all__ = ["COMMON", "SEED_FIELDS"]


def _seed(name: str, doc: str) -> Field:
    return Field(name, "int", None, doc, low=0, high=2**32 - 1, follows="seed")


#: In the order of tables: what an entry of a field brings stands behind that field.
COMMON = named(
    # data
    Field("data", "str", "digits", "data set", per="cohort", aka="dataset data_set"),
    Field("train_size", "int", None, "training examples used; None = all", low=1,
          high=MAX_EXAMPLES, aka="n_train num_train"),
    Field("label_noise", "float", 0.0, "share of training labels replaced at random", low=0,
          high=1),
    Field("normalization", "str", "standard", "input normalisation", per="cohort"),
    Field("augmentation", "str", "none", "training-time augmentation", per="cohort"),
    Field("sampler", "str", "epoch", "how the examples of a batch are drawn", per="cohort"),
    # diet
    Field("score", "str", "none", "what examples are ranked by, before training"),
    Field("dynamic", "str", "none", "weights on the examples of a batch, worked out in training",
          per="cohort"),
    # architecture
    Field("architecture", "str", "mlp", "architecture family", per="cohort",
          aka="model arch network"),
    Field("width", "int", 64, "hidden units or channels per layer", low=1, high=MAX_WIDTH,
          per="cohort", aka="hidden_size hidden_dim hidden channels units"),
    Field("activation", "str", "relu", "activation function", per="cohort",
          aka="nonlinearity act"),
    Field("norm", "str", "none", "normalisation layer", per="cohort",
          aka="normalization_layer norm_layer batch_norm"),
    Field("weight_transform", "str", "none", "what hidden weights go through before they are used",
          per="cohort"),
    Field("dropout", "float", 0.0, "dropout probability", low=0, below=1, per="switch",
          aka="dropout_rate drop_rate"),
    # optimization
    Field("optimizer", "str", "sgd", "optimizer", per="cohort", aka="optim optimiser"),
    Field("lr", "float", 0.1, "peak learning rate", above=0,
          aka="learning_rate step_size eta base_lr initial_lr"),
    Field("weight_decay", "float", 0.0, "weight decay, as the optimizer of torch defines it",
          low=0, aka="wd l2 l2_reg l2reg"),
    Field("decay_mask", "str", "all", "parameters that weight decay acts on", per="cohort"),
    Field("clip_norm", "float", None, "largest norm of a model's gradient; None = any", above=0,
          per="switch", aka="grad_clip max_grad_norm clip"),
    Field("objective", "str", "cross_entropy", "what is minimised", per="cohort",
          aka="loss_function criterion loss_fn"),
    Field("batch_size", "int", 32, "examples per step", low=1, high=MAX_EXAMPLES, per="cohort",
          aka="batchsize bs batch mini_batch"),
    Field("epochs", "float", None, "passes over the training set; 20 if steps is unset", low=0,
          high=MAX_EPOCHS, aka="num_epochs n_epochs max_epochs"),
    Field("steps", "int", None, "optimizer steps; wins over epochs", low=0, high=MAX_STEPS,
          aka="num_steps n_steps max_steps iterations"),
    Field("schedule", "str", "constant", "learning-rate schedule",
          aka="scheduler lr_schedule lr_scheduler"),
    Field("precision", "str", "float32", "compute precision; the slab is float32", per="cohort",
          aka="dtype"),
    # initialisation and seeds
    Field("init", "str", "default", "weight initialisation scheme",
          aka="initialization initializer initialisation"),
    Field("init_scale", "float", 1.0, "factor on the initial weight matrices", above=0),
    Field("seed", "int", 0, "repetition; the default of the six seeds", low=0, high=2**32 - 1,
          aka="random_seed random_state"),
    _seed("init_seed", "seed of the weights"),
    _seed("order_seed", "seed of the data order"),
    _seed("augment_seed", "seed of the augmentation"),
    _seed("dropout_seed", "seed of dropout"),
    _seed("noise_seed", "seed of the label noise and of the training subset"),
    _seed("diet_seed", "seed of the diet"),
)  # fmt: skip

declare(COMMON)

#: The independent seeds; each takes the value of ``seed`` where it is not given.
SEED_FIELDS = tuple(name for name, field in COMMON.items() if field.follows == "seed")

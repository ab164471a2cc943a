"""Predicates: equal to numpy on what they allow, and an error that points on what they do not."""

from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.errors import QueryError, nearest
from zoo.spec.predicate import compile_predicate

NAMES = ("width", "norm", "nesterov", "test_accuracy", "epoch", "depth", "lr")
COLUMNS = {
    "width": np.array([16, 64, 128])[:, None],
    "norm": np.array(["none", "batch", "layer"])[:, None],
    "nesterov": np.array([None, True, False], dtype=object)[:, None],
    "test_accuracy": np.array([[0.9, 0.8], [0.95, np.nan], [1.0, 0.3]], dtype=np.float32),
    "epoch": np.array([[0.0, 20.0]] * 3),
    "depth": np.array([None, 2, 3], dtype=object)[:, None],
    "lr": 0.1,
}
W, A = COLUMNS["width"], COLUMNS["test_accuracy"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("width >= 64 and norm == 'layer'", [[0], [0], [1]]),
        ("width >= 64 and epoch == 20", [[0, 0], [0, 1], [0, 1]]),
        ("16 < width <= 64", [[0], [1], [0]]),
        ("64 >= width > 16 != epoch", [[0, 0], [1, 1], [0, 0]]),
        ("norm in ['none', 'layer']", [[1], [0], [1]]),
        ("norm not in ('none', 'layer')", [[0], [1], [0]]),
        ("width in {16, 128}", [[1], [0], [1]]),
        ("width in []", [[0], [0], [0]]),
        ("width in [-16, +64]", [[0], [1], [0]]),
        ("nesterov", [[0], [1], [0]]),
        ("not nesterov", [[1], [0], [1]]),
        ("nesterov == False", [[0], [0], [1]]),
        ("nesterov is None", [[1], [0], [0]]),
        ("None != nesterov", [[0], [1], [1]]),
        ("nesterov in [True, None]", [[1], [1], [0]]),
        ("depth is not None and depth > 2", [[0], [0], [1]]),
        ("depth != 2", [[1], [0], [1]]),
        ("not depth > 2", [[1], [1], [0]]),
        ("-depth is None", [[1], [0], [0]]),
        ("depth + width > 0", [[0], [1], [1]]),
        ("test_accuracy is None", [[0, 0], [0, 1], [0, 0]]),
        ("test_accuracy >= 0.9", [[1, 0], [1, 0], [1, 0]]),  # in float32: 0.9 is 0.9
        ("test_accuracy < 2", [[1, 1], [1, 0], [1, 1]]),
        ("-width % 5 == 4", [[1], [0], [0]]),
        ("width / 0 > 3", [[1], [1], [1]]),
        ("(width + 1) * 2 - 4 > lr * 1000", [[0], [1], [1]]),
        ("width == 4611686018427387904 * 4", [[0], [0], [0]]),
        ("norm == 'é' or width == 64", [[0], [1], [0]]),
        ("width >\n  64", [[0], [0], [1]]),
    ],
)
def test_a_predicate_selects(text, expected):
    found = compile_predicate(text, NAMES)(COLUMNS)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, np.array(expected, dtype=bool))


def test_scalars_give_a_scalar_and_names_are_those_read():
    predicate = compile_predicate("lr == 0.1 and True", NAMES)
    assert predicate.names == {"lr"}
    assert predicate({"lr": 0.1}).shape == ()
    assert bool(predicate({"lr": 0.1}))
    assert not predicate({"lr": np.float64(0.2)})


def test_string_columns_of_every_type():
    predicate = compile_predicate("norm == 'b' or norm in ['c']", ["norm"])
    for column in (
        np.array(["a", "b", "c"]),
        np.array([b"a", b"b", b"c"]),
        np.array([None, "b", "c"], dtype=object),
        np.array(["a", "b", "c"], dtype=np.dtypes.StringDType()),
    ):
        assert predicate({"norm": column}).tolist() == [False, True, True]


def test_a_column_that_is_missing_everywhere_equals_nothing():
    empty = {"depth": np.array([None, None], dtype=object)}
    assert compile_predicate("depth != 3", NAMES)(empty).tolist() == [True, True]
    assert compile_predicate("depth > 3 or depth == 3", NAMES)(empty).tolist() == [False, False]
    assert compile_predicate("depth is None", NAMES)(empty).tolist() == [True, True]


def test_integers_do_not_wrap_round():
    big = {"width": np.array([2**62], dtype=np.int64)}
    assert compile_predicate("width * 4 > width", NAMES)(big).all()


BAD = [
    ("widht > 3", "unknown column 'widht'; did you mean 'width'?"),
    ("norm == layer", "text needs quotes: 'layer'"),
    ("nesterov == true", "write True, False or None"),
    ("width = 3", "`==` compares"),
    ("width <> 3", "write `!=`"),
    ("width > 3 && lr > 1", "write `and`"),
    ("width > 3 || lr > 1", "write `or`"),
    ("(width > 3) & (lr > 1)", "write `and`"),
    ("norm == 3", "text compared with number; with quotes: '3'"),
    ("width == '64'", "without quotes: 64"),
    ("width in ['64']", "number compared with text"),
    ("norm == nesterov", "text compared with true or false"),
    ("width", "number is not a condition"),
    ("width and lr > 1", "number is not a condition"),
    ("'a'", "text is not a condition"),
    ("norm < 'a'", "text has no order"),
    ("norm + 1 > 3", "arithmetic needs numbers"),
    ("-norm == 3", "arithmetic needs numbers"),
    ("nesterov * 2 > 3", "arithmetic needs numbers"),
    ("width < None", "write `is None`"),
    ("width is 3", "`is` is for None"),
    ("norm in 'batch'", "needs a list of literals"),
    ("width in [lr]", "a list holds literals only"),
    ("width in [[1], 2]", "a list holds literals only"),
    ("width ** 2 > 3", "allowed: + - * / %"),
    ("~width > 3", "this operator (write `not`)"),
    ("__import__('os').system('true')", "a call is not allowed"),
    ("lr.real > 3", "an attribute is not allowed"),
    ("width[0] > 3", "an index is not allowed"),
    ("(lambda: 1)() == 1", "a call is not allowed"),
    ("[w for w in width] == 3", "listcomp syntax is not allowed"),
    ("(x := 3) == 3", "an assignment is not allowed"),
    ("lr if True else width", "if-else is not allowed"),
    ("f'{lr}' == norm", "an f-string is not allowed"),
    ("width == 3j", "complex literals"),
    ("norm == b'a'", "bytes literals"),
    ("width == 99999999999999999999999", "too large"),
    ("", "empty"),
    ("width >", "not a predicate"),
    ("width > 3; import os", "not a predicate"),
    ("width == 1\0", "null bytes"),
    ("(" * 300 + "width" + ")" * 300, "not"),
    ("-" * 300 + "width > 3", "deep"),
    ("width > " + "1" * 200_000, "characters; allowed"),
]


@pytest.mark.parametrize(("text", "fragment"), BAD, ids=[text[:40] for text, _ in BAD])
def test_a_bad_predicate_says_why(text, fragment):
    with pytest.raises(QueryError) as caught:
        compile_predicate(text, NAMES)(COLUMNS)
    assert fragment in str(caught.value)


def test_the_caret_stands_under_the_place():
    with pytest.raises(QueryError) as caught:
        compile_predicate("norm == 'é' and widht > 3", NAMES)
    _, shown, caret = str(caught.value).splitlines()
    assert shown[caret.index("^") :].startswith("widht")


def test_other_types_than_text_are_refused():
    for value in (None, 3, True, ["width > 3"]):
        with pytest.raises(QueryError, match="a predicate is text"):
            compile_predicate(value, NAMES)


def test_a_column_that_was_not_given_and_one_of_mixed_types():
    with pytest.raises(QueryError, match="'lr' was not given"):
        compile_predicate("lr > 1", NAMES)({})
    mixed = {"lr": np.array([1, "a"], dtype=object)}
    with pytest.raises(QueryError, match="mixes int, str"):
        compile_predicate("lr > 1", NAMES)(mixed)
    with pytest.raises(QueryError, match="complex128 cannot be queried"):
        compile_predicate("lr > 1", NAMES)({"lr": np.array([1j])})


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=string.printable, max_size=40))
def test_any_text_gives_a_predicate_or_a_query_error(text):
    try:
        found = compile_predicate(text, NAMES)(COLUMNS)
    except QueryError:
        return
    assert found.dtype == bool


_LEAVES = st.sampled_from(
    ["width > 20", "width == 64", "test_accuracy <= 0.8", "epoch == 20", "norm != 'batch'"]
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join).map("({})".format),
        inner.map("(not {})".format),
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(_TREES)
def test_logic_equals_that_of_python_value_by_value(text):
    shape = A.shape
    columns = {name: np.broadcast_to(COLUMNS[name], shape) for name in NAMES}
    found = np.broadcast_to(compile_predicate(text, NAMES)(COLUMNS), shape)
    for index in np.ndindex(shape):
        row = {name: column[index] for name, column in columns.items()}
        assert found[index] == bool(eval(text, {}, row))


def test_nearest_is_a_spelling_or_a_part():
    names = ("hessian_trace", "grad_noise_trace", "width")
    assert nearest("widht", names) == "width"
    assert nearest("trace", names) == "hessian_trace"
    assert nearest("he", names) is None
    assert nearest("colour", names) is None


# -- precision ------------------------------------------------------------------------------------

#: Rates as a sweep may have them, and as single and half precision keep them.
_RATES = np.array([0.1, 0.3, 0.02, 0.7, 1.3e-4, 0.123456789012345, 3.0])
_PRECISE = {
    "lr": _RATES,
    "step_lr": _RATES.astype(np.float32),
    "coarse": _RATES.astype(np.float16),
    "seed": np.array([0, 1, 2**24 + 1, 2**31, 2**32 - 2, 2**32 - 1, 2**53 + 1]),
}


def _holds(text, columns=_PRECISE):
    return compile_predicate(text, columns)(columns)


@pytest.mark.parametrize(
    "text",
    [
        "step_lr == lr", "lr == step_lr", "step_lr <= lr", "step_lr >= lr", "not step_lr != lr",
        "step_lr - lr == 0", "step_lr / lr == 1", "-step_lr == -lr", "lr * 1 == step_lr",
        "step_lr + 0 == lr + 0", "coarse == lr", "coarse == step_lr", "coarse - step_lr == 0",
        "lr <= step_lr <= lr",
    ],
)  # fmt: skip
def test_what_is_equal_but_for_precision_is_equal(text):
    assert _holds(text).all()


@pytest.mark.parametrize(
    "text",
    ["step_lr > lr", "step_lr < lr", "step_lr != lr", "coarse > step_lr", "step_lr - lr > 0",
     "lr < step_lr or lr > step_lr", "coarse < lr"],
)  # fmt: skip
def test_precision_makes_no_difference(text):
    assert not _holds(text).any()


@pytest.mark.parametrize(
    "number", ["0.1", "1/10", "0.1 * 1", "1 - 0.9", "(1/10)", "0.2 / 2", "+0.1"]
)
@pytest.mark.parametrize("column", ["step_lr", "coarse"])
def test_how_a_number_is_spelled_makes_no_difference(column, number):
    first = [1, 0, 0, 0, 0, 0, 0]
    assert _holds(f"{column} == {number}").tolist() == first
    assert _holds(f"{number} == {column}").tolist() == first
    assert _holds(f"{column} * 10 == ({number}) * 10").tolist() == first
    assert _holds(f"{column} >= {number} and {column} <= {number}").tolist() == first
    assert _holds(f"not ({column} < {number}) and not ({column} > {number})").tolist() == first


def test_arithmetic_on_single_precision_is_done_in_double():
    columns = {"x": np.array([1e30, 1.0, 1e-30], dtype=np.float32)}
    assert _holds("x * x > 1e30", columns).tolist() == [1, 0, 0]
    assert _holds("x * x / x == x", columns).all()  # in float32 the square is infinite, or 0
    assert _holds("x * 10 == 10", columns).tolist() == [0, 1, 0]
    assert _holds("x in [1e30, 1e-30]", columns).tolist() == [1, 0, 1]


def test_doubles_keep_their_digits():
    columns = {"lr": np.array([0.1, np.float64(np.float32(0.1))])}
    assert _holds("lr == 0.1", columns).tolist() == [1, 0]
    assert _holds("lr > 0.1", columns).tolist() == [0, 1]


def test_large_integers_are_exact():
    for position, seed in enumerate(_PRECISE["seed"].tolist()):
        alone = [int(i == position) for i in range(7)]
        assert _holds(f"seed == {seed}").tolist() == alone
        assert _holds(f"seed in [{seed}]").tolist() == alone
        assert _holds(f"seed >= {seed} and seed < {seed + 1}").tolist() == alone
    assert _holds("seed + 1 == 4294967296").tolist() == [0, 0, 0, 0, 0, 1, 0]
    assert _holds("seed == 4294967295.0").tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_literals_may_come_from_single_precision():
    given = float(np.float32(0.1))
    plain = compile_predicate(f"lr == {given}", _PRECISE)(_PRECISE)
    single = compile_predicate(f"lr == {given}", _PRECISE, narrow=np.dtype(np.float32))(_PRECISE)
    assert plain.tolist() == [0] * 7
    assert single.tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_objects_of_single_precision_are_single():
    columns = {"x": np.array([np.float32(0.1), None], dtype=object)}
    assert _holds("x == 0.1", columns).tolist() == [1, 0]
    assert _holds("x > 0.1", columns).tolist() == [0, 0]

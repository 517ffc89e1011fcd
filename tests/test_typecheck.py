"""What the tests check of annotations, on functions as the import hook hands them over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from jaxtyping import Float, Int, Shaped, TypeCheckError
from torch import Tensor
from typecheck import check, jaxtyped

if TYPE_CHECKING:
    from nowhere import Unknown

checked = jaxtyped(typechecker=check)
NOTHING = torch.ones(4)
Pair = tuple[Float[Tensor, "b c"], Float[Tensor, "b d"]]


@checked
def plain(count: float, names: Mapping[str, int] | None = None) -> str:
    return "word" if count else 5


@checked
def shaped(both: Pair, more: Float[Tensor, " *b"] | None = None) -> Float[Tensor, "c d"]:
    one, other = both
    return (one.T @ other)[:2] if more is None else more


@checked
def told(x: Float[Tensor, "b c"], size: int) -> Float[Tensor, "b {size}"]:
    return x


@checked
def one_by_one(x: Float[Tensor, "b c"]) -> Iterator[Float[Tensor, " c"]]:
    yield from x


@checked
def known_to_static_checkers(x: Unknown) -> Unknown:
    return x


@checked
def earlier_than_its_class(x: Later) -> Later:
    return x


@checked
@dataclass(frozen=True)
class Later:
    scale: float
    table: Float[Tensor, "a a"]


def two(b=3, c=2, d=5):
    return torch.ones(b, c), torch.ones(3, d)


def test_types_are_checked_on_the_way_in_and_out():
    assert plain(1) == "word"
    for call in (lambda: plain("1"), lambda: plain(1, {2: 3}), lambda: plain(0)):
        with pytest.raises(TypeCheckError):
            call()


def test_an_axis_name_stands_for_one_size_within_a_call():
    assert shaped(two()).shape == (2, 5)
    assert shaped(two(d=4)).shape == (2, 4)
    with pytest.raises(TypeCheckError):
        shaped(two(b=4))
    with pytest.raises(TypeCheckError):
        shaped(two(c=4))  # of which it returns two rows
    with pytest.raises(TypeCheckError):
        shaped(two(), torch.ones(2, 5).long())


def test_a_size_may_be_an_argument():
    assert told(torch.ones(3, 2), 2).shape == (3, 2)
    with pytest.raises(TypeCheckError):
        told(torch.ones(3, 2), 4)


def test_what_comes_one_by_one_is_handed_on():
    assert [x.shape for x in one_by_one(torch.ones(3, 2))] == [(2,)] * 3
    with pytest.raises(TypeCheckError):
        list(one_by_one(torch.ones(3)))


def test_names_that_are_unknown_at_run_time_are_let_through():
    assert known_to_static_checkers(5) == 5


def test_names_that_are_written_further_down_are_checked():
    later = Later(1, torch.ones(2, 2))
    assert earlier_than_its_class(later) is later
    with pytest.raises(TypeCheckError):
        earlier_than_its_class(5)


def test_dataclasses_are_checked_when_they_are_made():
    assert Later(1, torch.ones(2, 2)).scale == 1
    with pytest.raises(TypeCheckError):
        Later("1", torch.ones(2, 2))
    with pytest.raises(TypeCheckError):
        Later(1.0, torch.ones(2, 3))


def test_the_package_is_checked():
    from vdm.utils.tensors import fold_frames

    with pytest.raises(TypeCheckError):
        fold_frames(torch.ones(2, 3, 4, 5))


def outer(size):
    seen = torch.ones(size)

    @checked
    def inner(x: Float[Tensor, "b c"], y: Float[Tensor, "c d"], count: int = 1) -> Tensor | None:
        return seen + count if x.shape[1] == size else None

    return inner


def test_functions_within_others_are_checked_one_by_one():
    for size in (2, 3):
        inner = outer(size)
        assert torch.equal(inner(torch.ones(4, size), torch.ones(size, 5)), torch.ones(size) + 1)
        with pytest.raises(TypeCheckError):
            inner(torch.ones(4, size), torch.ones(size + 1, 5))
        with pytest.raises(TypeCheckError):
            inner(torch.ones(4, size), torch.ones(size, 5), "1")


@checked
def kinds(
    some: Float[Tensor, "3 _ ..."],
    ends: Int[Tensor, "b ... c"] | Float[Tensor, " b"],
    more: Shaped[Tensor, "4 ..."] = NOTHING,
) -> Float[Tensor, "b 3"]:
    return more if more.ndim == 2 else torch.ones(len(ends), 3)


def test_axes_may_be_of_any_number_and_size():
    some, whole = torch.ones(3, 5, 7), torch.ones(4, 2).long()
    assert kinds(some, whole).shape == (4, 3)
    assert kinds(some[..., 0].bfloat16(), torch.ones(4)).shape == (4, 3)
    assert kinds(torch.nn.Parameter(some), torch.ones(4, 6, 6, 2).int()).shape == (4, 3)
    wrong = [
        (some[:2], whole),
        (some[:, 0, 0], whole),
        (some.long(), whole),
        (some, whole[:, 0]),
        (some, whole.float()),
        (some, whole.numpy()),
        (some, whole, torch.ones(4, 2)),
        (some, whole, [[1.0] * 3] * 4),
    ]
    for arguments in wrong:
        with pytest.raises(TypeCheckError):
            kinds(*arguments)

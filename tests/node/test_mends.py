"""What JSON of the wrong shape is answered."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest
from msgspec import UNSET, Struct, UnsetType

from node.mends import mend


class _Inner(Struct, rename="camel"):
    role_name: Literal["member", "owner"]
    seconds: int | UnsetType = UNSET


class _Outer(Struct):
    user: str
    one: _Inner | None = None
    many: list[_Inner] | UnsetType = UNSET
    by_name: dict[str, _Inner] = {}


@pytest.mark.parametrize(
    ("given", "fields", "told"),
    [
        ("{}", (), "user is missing; give user, one, many, by_name"),
        ("{}", ("user", "id"), "user is missing; give user, id"),
        ('{"user":"a","one":{}}', ("user", "id"), "roleName is missing at $.one; give roleName, seconds"),
        ('{"user":"a","many":[{}]}', (), "roleName is missing at $.many[0]; give roleName, seconds"),
        ('{"user":"a","by_name":{"x":{}}}', (), "roleName is missing at $.by_name[...]; give roleName, seconds"),
        (
            '{"user":"a","one":{"roleName":"king"}}', (),
            "Invalid enum value 'king' - at `$.one.roleName`; give one of member, owner",
        ),
        (
            '{"user":"a","many":[{"roleName":"owner"},{"roleName":"` - at `$.user`"}]}', (),
            "Invalid enum value '` - at `$.user`' - at `$.many[1].roleName`; give one of member, owner",
        ),
        ('{"user":7}', (), "Expected `str`, got `int` - at `$.user`"),
        ("{", (), "Input data was truncated"),
    ],
)  # fmt: skip
def test_names_the_place_and_the_mend(given: str, fields: tuple[str, ...], told: str) -> None:
    with pytest.raises(msgspec.MsgspecError) as caught:
        msgspec.json.decode(given, type=_Outer)

    assert mend(caught.value, _Outer, fields) == told

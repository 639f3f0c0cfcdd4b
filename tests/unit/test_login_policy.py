"""Multi-terminal login: the table of websocket.md section 7. Admin tokens (platform 10) are outside of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imserver.actions.login_policy import must_leave, tokens_to_kick
from imserver.constants import PLATFORM_CLASS, Platform

USERS_PLATFORMS = [int(platform) for platform in Platform if platform != Platform.ADMIN]
CLASSES = {
    **dict.fromkeys((1, 2), "Mobile"),
    **dict.fromkeys((3, 4, 7), "PC"),
    **dict.fromkeys((8, 9), "Pad"),
    5: "Web",
    6: "MiniWeb",
    10: "Admin",
    11: "HarmonyOS",
}
POLICIES = (0, 1, 4, 5)

platforms = st.sampled_from(USERS_PLATFORMS)
policies = st.sampled_from(POLICIES)


@st.composite
def known_tokens(draw: st.DrawFn) -> dict[int, list[str]]:
    """Valid tokens by platform, oldest first; all different."""
    counts = draw(st.dictionaries(platforms, st.integers(1, 4), max_size=6))
    return {platform: [f"{platform}.{number}" for number in range(count)] for platform, count in counts.items()}


def kept(tokens: dict[int, list[str]], kicked: dict[int, list[str]]) -> dict[int, list[str]]:
    left = {
        platform: [item for item in known if item not in kicked.get(platform, [])] for platform, known in tokens.items()
    }
    return {platform: known for platform, known in left.items() if known}


def test_the_classes_are_those_of_the_protocol() -> None:
    assert {int(platform): kind for platform, kind in PLATFORM_CLASS.items()} == CLASSES


@given(policies, platforms, known_tokens(), st.integers(1, 6))
def test_only_tokens_that_exist_are_kicked_each_on_its_platform(
    policy: int, platform: int, tokens: dict[int, list[str]], most: int
) -> None:
    kicked = tokens_to_kick(policy, platform, tokens, most)

    for at, losers in kicked.items():
        assert losers
        assert len(losers) == len(set(losers))
        assert set(losers) <= set(tokens[at])


@given(policies, platforms, known_tokens(), st.integers(1, 6))
def test_asking_does_not_change_the_tokens(policy: int, platform: int, tokens: dict[int, list[str]], most: int) -> None:
    before = {at: list(known) for at, known in tokens.items()}

    tokens_to_kick(policy, platform, tokens, most)

    assert tokens == before


@given(platforms, known_tokens(), st.integers(1, 6))
def test_policy_0_keeps_the_newest_of_the_platform_up_to_the_limit(
    platform: int, tokens: dict[int, list[str]], most: int
) -> None:
    kicked = tokens_to_kick(0, platform, tokens, most)

    own = tokens.get(platform, [])
    left = kept(tokens, kicked).get(platform, [])
    assert len(left) + 1 <= max(most, 1)
    assert left == own[len(own) - len(left) :]
    assert len(left) == min(len(own), most - 1)
    assert set(kicked) <= {platform}


@given(platforms, known_tokens())
def test_policy_1_clears_the_platform_and_leaves_one_on_each_other(platform: int, tokens: dict[int, list[str]]) -> None:
    left = kept(tokens, tokens_to_kick(1, platform, tokens, 30))

    assert platform not in left
    assert {at: len(known) for at, known in left.items()} == {at: 1 for at in tokens if at != platform}
    assert all(left[at] == [tokens[at][-1]] for at in left)


@given(platforms, known_tokens())
def test_policy_4_clears_the_class_and_leaves_one_in_each_other(platform: int, tokens: dict[int, list[str]]) -> None:
    left = kept(tokens, tokens_to_kick(4, platform, tokens, 30))

    by_class: dict[str, int] = {}
    for at, known in left.items():
        by_class[CLASSES[at]] = by_class.get(CLASSES[at], 0) + len(known)
    assert by_class == {CLASSES[at]: 1 for at in tokens if CLASSES[at] != CLASSES[platform]}


@given(platforms, known_tokens())
def test_policy_5_leaves_pcs_alone_and_one_token_of_the_rest_at_most(
    platform: int, tokens: dict[int, list[str]]
) -> None:
    left = kept(tokens, tokens_to_kick(5, platform, tokens, 30))

    pcs = {at: known for at, known in tokens.items() if CLASSES[at] == "PC"}
    assert {at: known for at, known in left.items() if CLASSES[at] == "PC"} == pcs
    others = sum(len(known) for at, known in left.items() if CLASSES[at] != "PC")
    had_others = any(CLASSES[at] != "PC" for at in tokens)
    assert others == (1 if CLASSES[platform] == "PC" and had_others else 0)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("new", USERS_PLATFORMS)
@pytest.mark.parametrize("other", USERS_PLATFORMS)
def test_who_leaves_when_a_user_connects_is_the_tables_answer(policy: int, new: int, other: int) -> None:
    table = {
        0: False,
        1: new == other,
        4: CLASSES[new] == CLASSES[other],
        5: CLASSES[new] != "PC" and CLASSES[other] != "PC",
    }

    assert must_leave(policy, new, other) == table[policy]


@given(policies, platforms, platforms)
def test_leaving_is_mutual(policy: int, one: int, other: int) -> None:
    assert must_leave(policy, one, other) == must_leave(policy, other, one)

"""Multi-terminal login: who has to go when a user logs in again. Pure decisions; the numbers are OpenIM's."""

from __future__ import annotations

from imserver.constants import PLATFORM_CLASS, LoginPolicy, Platform


def tokens_to_kick(
    policy: int, platform_id: int, tokens: dict[int, list[str]], max_per_end: int
) -> dict[int, list[str]]:
    """Valid tokens that a new token for ``platform_id`` pushes out.

    Args:
        tokens: valid tokens by platform, oldest first.
        max_per_end: policy 0 keeps this many a platform, the new one included.
    """
    others = {platform: known for platform, known in tokens.items() if platform != platform_id}
    own = tokens.get(platform_id, [])
    if policy == LoginPolicy.NO_KICK:
        surplus = len(own) + 1 - max_per_end
        return {platform_id: own[:surplus]} if surplus > 0 else {}
    if policy == LoginPolicy.ONE_PER_PLATFORM:
        return _drop_empty({platform_id: own, **{platform: known[:-1] for platform, known in others.items()}})
    if policy == LoginPolicy.ONE_PER_CLASS:
        return _one_per_class(platform_id, tokens)
    return _pc_and_other(platform_id, tokens)


def _one_per_class(platform_id: int, tokens: dict[int, list[str]]) -> dict[int, list[str]]:
    """All tokens of the class go; of each other class the newest stays."""
    mine = PLATFORM_CLASS[platform_id]
    kicked: dict[int, list[str]] = {}
    kept: set[str] = set()
    for platform, known in sorted(_drop_empty(tokens).items()):
        kind = PLATFORM_CLASS[platform]
        if kind == mine or kind in kept:
            kicked[platform] = known
        else:
            kept.add(kind)
            kicked[platform] = known[:-1]
    return _drop_empty(kicked)


def _pc_and_other(platform_id: int, tokens: dict[int, list[str]]) -> dict[int, list[str]]:
    """PCs are free; among everything else there is one."""
    not_pc = {
        platform: known for platform, known in sorted(tokens.items()) if PLATFORM_CLASS[platform] != "PC" and known
    }
    if PLATFORM_CLASS[platform_id] != "PC":
        return _drop_empty(not_pc)
    kicked: dict[int, list[str]] = {}
    for at, (platform, known) in enumerate(not_pc.items()):
        kicked[platform] = known[:-1] if at == 0 else known
    return _drop_empty(kicked)


def must_leave(policy: int, new_platform: int, other_platform: int) -> bool:
    """Has a connection on ``other_platform`` (with another token) to go when the user connects on ``new_platform``?"""
    new_class, other_class = PLATFORM_CLASS[new_platform], PLATFORM_CLASS[other_platform]
    if policy == LoginPolicy.ONE_PER_PLATFORM:
        return new_platform == other_platform
    if policy == LoginPolicy.ONE_PER_CLASS:
        return new_class == other_class
    if policy == LoginPolicy.PC_AND_OTHER:
        return new_class != "PC" and other_class != "PC"
    return False


def platforms_that_leave(policy: int, platform_id: int) -> tuple[int, ...]:
    """Platforms whose connections have to go when the user connects on ``platform_id``. Admins are outside the policies."""
    if platform_id == Platform.ADMIN:
        return ()
    return tuple(int(other) for other in Platform if other != Platform.ADMIN and must_leave(policy, platform_id, other))


def kicks_own_tokens(policy: int, platform_id: int) -> bool:
    """Does a new connection end all other tokens of its platform, also those without a connection?"""
    if platform_id == Platform.ADMIN:
        return False
    if policy == LoginPolicy.PC_AND_OTHER:
        return PLATFORM_CLASS[platform_id] != "PC"
    return policy == LoginPolicy.ONE_PER_PLATFORM


def _drop_empty(kicked: dict[int, list[str]]) -> dict[int, list[str]]:
    return {platform: known for platform, known in kicked.items() if known}

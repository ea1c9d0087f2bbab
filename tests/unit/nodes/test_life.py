"""Whether a node is alive: its signs, what others say of it, and the rule of mass loss."""

from hypothesis import given
from hypothesis import strategies as st

from korch.nodes.life import (
    ASK_AFTER_S,
    LOSS_WINDOW_S,
    LOST_AFTER_S,
    OPINION_FRESH_S,
    QUIET_AFTER_S,
    Life,
    Sight,
    ask_every_s,
    greet_every_s,
    is_mass_loss,
)

moments = st.floats(min_value=0, max_value=1e6)
silences = st.floats(min_value=0, max_value=1e5)
opinions = st.dictionaries(st.sampled_from(["n1", "n2", "n3"]), st.booleans())


def life(silent_s: float, said: dict[str, bool], said_ago_s: float = 0.0, now: float = 1000.0) -> Life:
    found = Life(now - silent_s)
    found.hear(said, now - said_ago_s)
    return found


def test_silence_is_doubted_before_it_is_a_loss() -> None:
    nobody = {"n1": False, "n2": False}
    assert life(0, nobody).verdict(1000) == "alive"
    assert life(QUIET_AFTER_S, nobody).verdict(1000) == "quiet"
    assert life(ASK_AFTER_S, nobody).verdict(1000) == "doubted"
    assert life(LOST_AFTER_S - 0.01, nobody).verdict(1000) == "doubted"
    assert life(LOST_AFTER_S, nobody).verdict(1000) == "lost"


def test_nobody_is_lost_on_no_word_on_an_old_one_or_against_one() -> None:
    assert life(60, {}).verdict(1000) == "doubted"
    assert life(60, {"n1": False}, OPINION_FRESH_S + 0.1).verdict(1000) == "doubted"
    assert life(60, {"n1": False, "n2": True}).verdict(1000) == "doubted"
    found = life(60, {"n1": True}, OPINION_FRESH_S + 0.1)
    found.hear({"n2": False}, 1000)
    assert found.verdict(1000) == "lost", "who reached it some time ago has been asked again, or is not heard now"


def test_a_sign_ends_all_doubt() -> None:
    found = life(60, {"n1": False})
    found.sign(1000)
    assert (found.verdict(1000), found.opinions, found.silent_s(1001)) == ("alive", {}, 1)
    assert found.verdict(1000 + LOST_AFTER_S) == "doubted", "what was said before does not count"


@given(silent=silences, said=opinions, ago=silences, now=moments)
def test_lost_needs_six_seconds_and_one_fresh_word_and_none_against(
    silent: float, said: dict[str, bool], ago: float, now: float
) -> None:
    found = life(silent, said, ago, now)
    if found.verdict(now) == "lost":
        assert found.silent_s(now) >= LOST_AFTER_S
        assert said
        assert not any(said.values())


@given(said=opinions, now=moments, stall=st.floats(min_value=0, max_value=5.0))
def test_a_stall_of_five_seconds_is_no_loss(said: dict[str, bool], now: float, stall: float) -> None:
    assert life(stall, said, now=now).verdict(now) != "lost"


@given(silent=silences)
def test_who_is_silent_for_long_is_asked_less_often_but_before_opinions_are_stale_for_long(silent: float) -> None:
    assert 1.0 <= greet_every_s(silent) <= 5.0
    assert 1.0 <= ask_every_s(silent) <= OPINION_FRESH_S + 1.0
    assert ask_every_s(LOST_AFTER_S) < OPINION_FRESH_S


sights = st.lists(
    st.builds(Sight, st.just("n"), st.none() | st.floats(min_value=0, max_value=1e4), st.booleans()), max_size=12
)


@given(found=sights, order=st.randoms(use_true_random=False))
def test_mass_loss_is_a_majority_of_those_that_were_ready(found: list[Sight], order) -> None:  # type: ignore[no-untyped-def]
    verdict = is_mass_loss(found)
    mixed = list(found)
    order.shuffle(mixed)
    assert is_mass_loss(mixed) is verdict
    assert is_mass_loss([*found, Sight("old", LOSS_WINDOW_S + 1, True), Sight("new", 1.0, False)]) is verdict
    alive = [Sight("up", None, True)] * (len(found) + 1)
    assert not is_mass_loss([*found, *alive]), "with more nodes alive than lost it is no mass"
    if verdict:
        assert is_mass_loss([*found, Sight("another", 0.0, True)]), "one more loss makes it no smaller"

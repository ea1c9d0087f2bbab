"""Whether a node is alive: its signs, what others say of it, and the rule of mass loss."""

from hypothesis import given
from hypothesis import strategies as st

from korch.nodes.life import (
    ANSWER_S,
    ASK_AFTER_S,
    DECIDE_AFTER_S,
    LOSS_WINDOW_S,
    LOST_AFTER_S,
    OPINION_FRESH_S,
    PULSE_S,
    QUIET_AFTER_S,
    STALL_S,
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
    """Silent for so long, and greeted all the time."""
    found = Life(now - silent_s)
    for tenths in range(int(min(silent_s, 20) * 10) + 1):
        found.greet(now - silent_s + tenths / 10)
    found.hear(said, now - said_ago_s)
    return found


def test_silence_is_doubted_before_it_is_a_loss() -> None:
    nobody = {"n1": False, "n2": False}
    assert life(0, nobody).verdict(1000) == "alive"
    assert life(QUIET_AFTER_S, nobody).verdict(1000) == "quiet"
    assert life(ASK_AFTER_S, nobody).verdict(1000) == "doubted"
    assert life(LOST_AFTER_S - 0.1, nobody).verdict(1000) == "doubted"
    assert life(LOST_AFTER_S + 0.1, nobody).verdict(1000) == "lost"


def test_nobody_is_lost_on_no_word_on_an_old_one_or_against_one() -> None:
    assert life(60, {}).verdict(1000) == "doubted"
    assert life(60, {"n1": False}, OPINION_FRESH_S + 0.1).verdict(1000) == "doubted"
    assert life(60, {"n1": False, "n2": True}).verdict(1000) == "doubted"
    found = life(60, {"n1": True}, OPINION_FRESH_S + 0.1)
    found.hear({"n2": False}, 1000)
    assert found.verdict(1000) == "lost", "who reached it some time ago has been asked again, or is not heard now"


def test_only_a_greeting_that_was_begun_late_decides() -> None:
    found = Life(0.0)
    found.greet(DECIDE_AFTER_S - 0.1)
    found.hear({"n1": False}, 9.0)
    assert found.verdict(9.5) == "doubted"
    found.greet(9.5)
    assert found.verdict(9.5 + ANSWER_S / 2) == "doubted", "it has its time to be answered"
    assert found.verdict(9.6 + ANSWER_S) == "lost"


def test_a_sign_ends_all_doubt() -> None:
    found = life(60, {"n1": False})
    found.sign(1000)
    assert (found.verdict(1000), found.opinions, found.silent_s(1001)) == ("alive", {}, 1)
    found.hear({"n1": False}, 1000 + LOST_AFTER_S)
    assert found.verdict(1000 + LOST_AFTER_S) == "doubted", "the greetings of before do not count"


@given(silent=silences, said=opinions, ago=silences, now=moments)
def test_lost_needs_silence_and_one_fresh_word_and_none_against(
    silent: float, said: dict[str, bool], ago: float, now: float
) -> None:
    found = life(silent, said, ago, now)
    if found.verdict(now) == "lost":
        assert found.silent_s(now) >= LOST_AFTER_S - 0.001
        assert said
        assert not any(said.values())


@given(
    before=st.floats(min_value=0, max_value=PULSE_S),
    greet_every=st.floats(min_value=0.1, max_value=1.0),
    took=st.floats(min_value=0, max_value=ANSWER_S * 0.9),
)
def test_a_stall_of_five_seconds_is_no_loss(before: float, greet_every: float, took: float) -> None:
    """Whatever others say, whenever the last pulse was, and however the greetings fall: those of the stall are lost."""
    found, end, now = Life(0.0), before + STALL_S, 0.0
    begun: list[float] = []
    while now < end + 3:
        found.hear({"n1": False, "n2": False}, now)
        answered = [at for at in begun if at >= end and at + took <= now]
        if answered:
            return
        assert found.verdict(now) != "lost"
        found.greet(now)
        begun.append(now)
        now += greet_every
    raise AssertionError("it never answered")


@given(silent=silences)
def test_who_is_silent_for_long_is_asked_less_often_but_before_opinions_are_stale_for_long(silent: float) -> None:
    assert 0.5 <= greet_every_s(silent) <= 5.0
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

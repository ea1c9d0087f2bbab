"""What a script's refusal means for pods."""

from korch.nodes.errors import pod_reason, refusal_error


def test_a_pull_whose_credentials_have_no_place_fails_as_other_pulls_do() -> None:
    error = refusal_error("n1", "tmpfs no tmpfs that could hold the registry credentials for the pull")
    assert pod_reason(error) == "ErrImagePull"
    assert str(error).startswith("n1: no tmpfs")
    assert "/dev/shm" in error.hint


def test_a_name_that_is_taken_is_a_container_that_cannot_be_made() -> None:
    assert pod_reason(refusal_error("n1", "clash web-1 is there and is another one")) == "CreateContainerError"

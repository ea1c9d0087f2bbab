"""Whether an object is legal, and whether a change of it is: all mistakes in one error, each with its path."""

from korch.resources.kinds import kind_of
from korch.resources.meta import Object
from korch.resources.names import check_annotations, check_labels, dns_subdomain_problem
from korch.resources.problems import Problem, Problems, raise_problems


def validate(obj: Object) -> None:
    """Raise `InvalidError` with every problem of an object that has its defaults."""
    raise_problems(_subject(obj), problems_of(obj))


def validate_update(new: Object, old: Object) -> None:
    """Raise `InvalidError` when `new` changes what cannot change."""


def problems_of(obj: Object) -> list[Problem]:
    """Everything that is wrong with an object that has its defaults."""
    problems = Problems()
    problems.check("metadata.name", dns_subdomain_problem(obj.metadata.name))
    check_labels(obj.metadata.labels, "metadata.labels", problems)
    check_annotations(obj.metadata.annotations, "metadata.annotations", problems)
    return problems.found


def _subject(obj: Object) -> str:
    return f'{kind_of(obj).name} "{obj.metadata.name}"'

"""Two names for one machine: its containers would be counted twice, so both are refused."""

from collections.abc import Iterable, Mapping

from korch.errors import InvalidError


class Tokens:
    """What names showed as their machine's token. What this process saw goes before what is on record.

    So names whose addresses were swapped are no twins: each is asked what it is now. It is remembered before anything
    is refused, or two names that are looked at one after the other would refuse each other for good.
    """

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}  # by name; "": no cluster was there before

    def note(self, name: str, token: str) -> None:
        """A look, or a claim, tells which machine it is."""
        self._shown[name] = token

    def forget(self, names: Iterable[str] | None = None) -> None:
        """These names, or all, may mean other machines now."""
        for name in list(self._shown) if names is None else names:
            self._shown.pop(name, None)

    def refuse_twins(self, names: Iterable[str], recorded: Mapping[str, str]) -> None:
        """`InvalidError` when one of `names` is another's machine too. `recorded`: by name, of the whole inventory."""
        holders: dict[str, list[str]] = {}
        for name, token in sorted({**recorded, **self._shown}.items()):
            if token and name in recorded:
                holders.setdefault(token, []).append(name)
        for name in sorted(names):
            twin = next((other for other in holders.get(self._shown.get(name, ""), ()) if other != name), None)
            if twin is not None:
                first, second = sorted((twin, name))
                raise InvalidError(
                    f'"{first}" and "{second}" are the same machine: both show the claim file of one',
                    hint="Keep one of the two names in the inventory"
                    " (a cloned machine: remove /var/lib/korch on the clone first).",
                )

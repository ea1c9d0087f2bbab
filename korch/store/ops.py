"""What every store asks of keys and transactions before it touches anything: pure, the same for all of them."""

from collections.abc import Sequence

from korch.errors import InvalidError
from korch.store.base import MAX_KEY_BYTES, MAX_TXN_BYTES, MAX_TXN_OPS, Check, Op, Put

_LAST_CHARACTER = "\U0010ffff"


def check_ops(ops: Sequence[Op]) -> tuple[Op, ...]:
    """`ops` as they came; raises `InvalidError` for a bad key, a key written twice, or too much at once."""
    if len(ops) > MAX_TXN_OPS:
        raise InvalidError(f"a transaction of {len(ops)} operations is too long", hint=f"At most {MAX_TXN_OPS} fit.")
    size, written = 0, set()
    for op in ops:
        size += key_size(op.key)
        if isinstance(op, Put):
            size += len(op.value)
        if not isinstance(op, Check):
            if op.key in written:
                raise InvalidError(f"{op.key} is written twice in one transaction")
            written.add(op.key)
    if size > MAX_TXN_BYTES:
        keys = ", ".join(sorted(written))
        raise InvalidError(
            f"{keys}: {size} bytes are too much for one write", hint=f"Keep it under {MAX_TXN_BYTES} bytes."
        )
    return tuple(ops)


def key_size(key: str) -> int:
    """Bytes of a legal key; `InvalidError` for any other."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidError(f"key {key!r} is not text") from error
    if not 1 <= size <= MAX_KEY_BYTES or "\0" in key:
        raise InvalidError(f"key {key[:80]!r} is empty, has a NUL or is longer than {MAX_KEY_BYTES} bytes")
    return size


def prefix_end(prefix: str) -> str | None:
    """The smallest text greater than all that start with `prefix`, in code point order; None when there is none."""
    stem = prefix.rstrip(_LAST_CHARACTER)
    if not stem:
        return None
    after = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if 0xD800 <= after <= 0xDFFF else after)

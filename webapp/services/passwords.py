"""Passwords: which are good enough, how they are kept, and how one is checked."""

from __future__ import annotations

import itertools
import secrets
import threading
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from webapp.services.cpu import run_blocking
from webapp.services.errors import Invalid

MIN_LENGTH = 10
_MIN_DIFFERENT = 5

# A flood of logins waits in line instead of taking the memory and the cores of everybody else.
_hashing = threading.BoundedSemaphore(2)

# The most used of ten characters and more, from published lists; shorter ones are too short.
_COMMON = frozenset(
    """
    password12 password123 password1234 password12345 password123456 passwordpassword passw0rd123
    p@ssw0rd123 p@ssword123 password1! password123! password2024 password2025 password2026
    1234567890 12345678910 123456789a 123456789q 1234567891 0123456789 0987654321 9876543210
    1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx3edc 1qazxsw23edc q1w2e3r4t5 q1w2e3r4t5y6 qwerty1234 qwerty12345
    qwerty123456 qwertyuiop qwertyuiop123 qwertyuiop[] asdfghjkl1 asdfghjkl; zxcvbnm123 1234qwerasdf
    qazwsxedcrfv administrator admin12345 admin123456 adminadmin administrator1 changeme123
    changeme1234 welcome123 welcome1234 letmein1234 iloveyou123 iloveyou12 football123 baseball123
    superman123 princess123 sunshine123 trustno1234 abcdefghij abcdefghijk abcd123456 abcdef1234
    abc1234567 a123456789 a1234567890 aa12345678 aa123456789 qwerasdfzxcv modelyard1 modelyard123
    modelyard12 letmeinplease thisispassword mypassword mypassword1 mypassword123 secret12345
    """.split()  # noqa: SIM905  a list of a hundred quoted words is no easier to read
)


def check_strength(password: str, *, email: str, name: str) -> None:
    """Raise Invalid, saying what would be right, where a password is too easy to guess."""
    folded = password.casefold()
    local = email.partition("@")[0].casefold()
    reason = None
    if len(password) < MIN_LENGTH:
        reason = f"must have at least {MIN_LENGTH} characters"
    elif folded in _COMMON:
        reason = "is one of the most used; choose one that nobody else has"
    elif len(set(folded)) < _MIN_DIFFERENT:
        reason = f"must have at least {_MIN_DIFFERENT} different characters"
    elif _is_a_row(folded):
        reason = "must not be a row of neighbouring characters"
    elif folded in (email.casefold(), local, name.casefold(), local * 2):
        reason = "must not be your address or your name"
    if reason:
        raise Invalid({"password": [f"The password {reason}"]})


def hash_password(password: str) -> str:
    with _hashing:
        return run_blocking(_hasher().hash, password)


def verify_password(password: str, stored: str | None) -> bool:
    """Tell whether a password is right; as slow where there is no such person (None)."""
    with _hashing:
        right = run_blocking(_verify, stored or _nobodys_hash(), password)
    return right and stored is not None


def _verify(stored: str, password: str) -> bool:
    try:
        return _hasher().verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


def _is_a_row(text: str) -> bool:
    """Tell whether each character follows the one before it, up or down."""
    steps = {ord(b) - ord(a) for a, b in itertools.pairwise(text)}
    return steps in ({1}, {-1})


@cache
def _hasher() -> PasswordHasher:
    # argon2id with the first of the parameters that OWASP's cheat sheet holds to be equal; one
    # lane, because more would only take more cores at once.
    return PasswordHasher(time_cost=1, memory_cost=46 * 1024, parallelism=1)


@cache
def _nobodys_hash() -> str:
    return run_blocking(_hasher().hash, secrets.token_hex(16))

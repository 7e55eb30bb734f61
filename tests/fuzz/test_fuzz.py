"""The corpus of each fuzz target, some seconds of each, and that what goes wrong is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.oracle import CANARY, FindingError, ensure_clean
from fuzz.running import CORPUS, run_turn
from fuzz.seeds import KEY_FILE, SEEDS
from fuzz.targets import SALT, TARGETS, run_keys, run_record, with_checksums
from pcs_core.errors import KeyringError, MalformedError
from pcs_logs import frame_of, raw_frame, raw_segment_header

FILES_MAX = 200
SEED = 20_261_121
EXECUTIONS = 3_000
SECONDS = 5

every_target = pytest.mark.parametrize("name", TARGETS)


@every_target
def test_corpus_keeps_every_promise(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert {path.name for path in inputs} >= {seed for seed, _ in SEEDS[name]()}
    for path in inputs:
        TARGETS[name].run(path.read_bytes())


def test_corpus_is_small_and_all_of_it_belongs_to_a_target() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert len(files) < FILES_MAX
    assert {path.parent.name for path in files} == set(TARGETS)


@pytest.mark.slow
@every_target
def test_some_seconds_of_mutations_find_nothing(name: str, tmp_path: Path) -> None:
    options = [f"-runs={EXECUTIONS}", f"-seed={SEED}"]
    corpus = tmp_path / "corpus"
    (corpus / name).mkdir(parents=True)
    for path in (CORPUS / name).iterdir():
        (corpus / name / path.name).write_bytes(path.read_bytes())
    tally = run_turn(name, SECONDS, tmp_path / "work", tmp_path, corpus=corpus, options=options)
    assert tally.crashes == []
    assert tally.executions > len(list((CORPUS / name).iterdir())), "no mutation was tried"


def crash(data: bytes) -> None:
    """Stand in for a parser with a bug, behind one branch."""
    if data[:1] == b"!":
        raise ValueError(data.decode("latin-1"))


@pytest.mark.slow
def test_engine_finds_a_bug_and_saves_the_input(tmp_path: Path) -> None:
    (tmp_path / "crash").mkdir()
    (tmp_path / "crash" / "seed").write_bytes(b"?")
    tally = run_turn(
        "fuzz.test_fuzz:crash", 60, tmp_path / "work", tmp_path, corpus=tmp_path, options=[f"-seed={SEED}"]
    )
    assert len(tally.crashes) == 1
    saved = [path for path in (tmp_path / "crash").iterdir() if path.name.startswith("crash-")]
    assert [path.read_bytes()[:1] for path in saved] == [b"!"]
    assert str(saved[0]) in tally.crashes[0]


class TestOracle:
    """What the promises are, and that each can be found broken."""

    def test_canary_in_a_message_or_in_a_chained_error(self) -> None:
        with pytest.raises(FindingError, match="quotes the input"):
            ensure_clean(ValueError(f"found {CANARY.lower()}"))
        error = MalformedError("$", "nothing", "something")
        error.__context__ = ValueError(CANARY)
        with pytest.raises(FindingError, match="ValueError quotes the input"):
            ensure_clean(error)
        error.__suppress_context__ = True
        ensure_clean(error)

    def test_error_that_is_not_documented(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fuzz.targets.decode_record", lambda data: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            run_record(b"{}")

    def test_documented_error_with_the_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def leak(text: str, *_: object) -> None:
            raise KeyringError(text)

        monkeypatch.setattr("fuzz.targets.parse_key_file", leak)
        with pytest.raises(FindingError, match="KeyringError quotes the input"):
            run_keys(KEY_FILE.encode())

    def test_round_trip(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "fuzz.targets.encode_record", lambda record: (CORPUS / "record" / "ed25519").read_bytes()
        )
        with pytest.raises(FindingError, match="another one after encoding"):
            run_record((CORPUS / "record" / "hmac").read_bytes())

    def test_checksums_made_right_are_those_of_the_format(self) -> None:
        frames = b"".join(raw_frame(frame_of(index), index + 1, SALT) for index in range(3))
        whole = raw_segment_header(1, SALT) + frames
        broken = bytearray(whole)
        for place in (26, 28 + 25, len(whole) - 1):
            broken[place] ^= 0xFF
        assert with_checksums(bytes(broken)) == whole

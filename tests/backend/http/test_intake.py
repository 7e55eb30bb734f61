"""Places and bytes are counted, and never given out twice."""

from __future__ import annotations

from pcs_backend.http.intake import Intake


def test_there_are_as_many_places_as_said() -> None:
    intake = Intake(connections_max=2, shared_bytes_max=10)
    assert [intake.enter() for _ in range(3)] == [True, True, False]
    intake.leave()
    assert (intake.connections, intake.enter(), intake.enter()) == (1, True, False)


def test_shared_bytes_are_given_out_up_to_the_last_one_and_not_in_part() -> None:
    intake = Intake(connections_max=1, shared_bytes_max=10)
    assert [intake.take(6), intake.take(5), intake.take(4), intake.take(1)] == [True, False, True, False]
    intake.give_back(6)
    assert intake.shared_bytes == 4
    assert [intake.take(7), intake.take(6)] == [False, True]

"""``python -m benchmarks.attack``: its exit status, and names that do not exist."""

from collections.abc import Sequence

import pytest

from benchmarks.attack import __main__ as command
from benchmarks.attack.attack import Attack
from benchmarks.attack.honest import Phase
from benchmarks.attack.outcome import Outcome
from benchmarks.attack.trial import Conditions

NOTHING = Phase([])


@pytest.mark.parametrize(("faults", "status"), [([], 0), (["a door is open"], 1)], ids=["harmless", "harmful"])
def test_exit_status_says_whether_an_attack_did_harm(
    faults: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(attacks: Sequence[Attack], conditions: Conditions) -> list[Outcome]:
        assert conditions.short
        return [Outcome(attack.name, faults, "", NOTHING, NOTHING, 0) for attack in attacks]

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command, "_leave", lambda core: None)
    monkeypatch.setattr("sys.argv", ["attack", "pipelining", "ipv6", "--short", "--memory-mib", "900"])
    assert command.main() == status
    printed = capsys.readouterr().out
    assert "900 MiB, enforced by" in printed
    assert printed.count("| pipelining |") == printed.count("| ipv6 |") == 1


def test_unknown_attack_is_refused_with_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["attack", "pipelines"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no attack 'pipelines'; there are pipelining, slow-readers" in capsys.readouterr().err

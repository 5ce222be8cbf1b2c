"""The benchmark of the code for speed."""

import pytest

from benchmarks import shortcuts


def test_every_shortcut_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert shortcuts.main(["--rounds", "1", "--calls", "2"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 8
    for row in rows:
        _, name, ours, library, ratio, _ = (cell.strip() for cell in row.split("|"))
        assert float(ours) > 0, name
        assert float(ratio) == pytest.approx(float(library) / float(ours), rel=0.2), name

import time

from bench.runtime.progress import Reporter


def test_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr("bench.runtime.progress.PLAIN_SECONDS", 0.0)
    reporter = Reporter()
    reporter.cell = "rotation seed 0: "
    with reporter.stage("pretraining", 100) as bar:
        bar.skip(50)
        time.sleep(0.01)
        bar.note("loss 1.234")
        bar.advance(25)
    lines = capsys.readouterr().err.splitlines()
    assert "75/100 img" in lines[-1]
    assert "s left" in lines[-2]
    assert "loss 1.234" in lines[-1]
    assert all(line.startswith("rotation seed 0: pretraining: ") for line in lines)

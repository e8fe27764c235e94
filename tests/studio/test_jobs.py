"""Commands beside the page."""

from __future__ import annotations

from distill.studio import jobs


def test_a_command_runs_and_says_what_it_prints(tmp_path):
    job = jobs.Job.start(tmp_path, "--help")
    job.process.wait(60)
    assert job.state == "finished" and "Usage: distill" in job.text()


def test_one_that_fails_says_so_and_one_that_lasts_is_stopped(tmp_path):
    failed, lasting = jobs.Job.start(tmp_path, "show", "nothing"), jobs.Job.start(tmp_path, "check", "core")
    assert lasting.state == "running"
    jobs.stop_all()
    failed.process.wait(60)
    assert "exit code" in lasting.state and "exit code" in failed.state

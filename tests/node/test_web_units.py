"""The page's pure parts, by Node's own test runner."""

import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "scripts" / "build_web"


@pytest.mark.slow
def test_the_page_type_checks_builds_and_passes_its_unit_tests() -> None:
    done = subprocess.run([BUILD, "--test"], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fail 0" in done.stdout

from pathlib import Path

import dreamquant

LONGEST = 300  # lines of one idea
SOURCE = Path(dreamquant.__file__).parent


def test_each_file_is_short_enough_for_one_idea():
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    assert {str(path.relative_to(SOURCE)): n for path, n in lines.items() if n > LONGEST} == {}

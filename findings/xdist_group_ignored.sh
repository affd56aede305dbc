#!/bin/sh
# pytest-xdist 3.8.0 with pytest 9.2.0: `--dist loadgroup` does not keep the tests of an xdist_group together.
#
# Guess before the run: tests that bear the mark xdist_group with one name run in one worker, so that a session's fixture
# is made once for all of them.
# Seen: they are dealt out to both workers, as with `--dist load`, without a warning. With pytest 8.4.2 they are together.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/test_it.py" <<'PYTHON'
import os
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("together")


@pytest.mark.parametrize("i", range(6))
def test_one(i):
    time.sleep(0.2)
    Path(os.environ["SEEN"], os.environ["PYTEST_XDIST_WORKER"]).touch()
PYTHON
${PYTHON:-python3.11} -m venv "$folder/venv"
for version in 9.2.0 8.4.2; do
    "$folder/venv/bin/pip" install -q "pytest==$version" pytest-xdist==3.8.0
    mkdir "$folder/$version"
    (cd "$folder" && SEEN="$folder/$version" venv/bin/python -m pytest -q -n 2 --dist loadgroup test_it.py > said)
    echo "pytest $version: $(ls "$folder/$version" | wc -l) workers ran the group"
done
[ "$(ls "$folder/9.2.0" | wc -l)" = 2 ] && [ "$(ls "$folder/8.4.2" | wc -l)" = 1 ] || { echo "no longer so"; exit 1; }

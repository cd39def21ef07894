"""Print what pyproject.toml says the server needs, and these extras of it, a line each: pip can't install only that."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
extras = [extra for extra in sys.argv[2].split(",") if extra]
lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
sys.stdout.write("\n".join(lines) + "\n")

"""What the last `make faults` or `make faults-quick` saw, as the table of docs/reliability.md."""

import json
import sys
from pathlib import Path


def rows(folder: Path) -> list[str]:
    """The lines of a Markdown table."""
    lines = ["| what | seen | seconds |", "|---|---|---|"]
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text())
        seen = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in found.items() if k not in ("row", "full", "seconds"))
        lines.append(f"| {found['row']}{'' if found['full'] else ' (quick)'} | {seen} | {found['seconds']} |")
    return lines


if __name__ == "__main__":
    sys.stdout.write("\n".join(rows(Path("outputs") / "faults")) + "\n")

"""Known vulnerabilities of the installed packages, by pip-audit. Without it or without its index it says so and passes.

Only what a newer version mends fails the audit: nothing can be done about the rest.
"""

from __future__ import annotations

import json
import subprocess
import sys

LIMIT = 300  # seconds
COMMAND = ("-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable", "--timeout", "15")


def main() -> int:
    """Audit, tell, and give the exit code."""
    try:
        ran = subprocess.run([sys.executable, *COMMAND], capture_output=True, text=True, timeout=LIMIT, check=False)
        packages = json.loads(ran.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired) as error:
        return _say(f"not audited: {error}")
    except (ValueError, KeyError, TypeError):
        return _say(f"not audited: {(ran.stderr.strip().splitlines() or ['pip-audit gave no answer'])[-1]}")
    code = 0
    for package in packages:
        for found in package.get("vulns", ()):
            mended = ", ".join(found["fix_versions"])
            code = 1 if mended else code
            _say(
                f"{package['name']} {package['version']}: {found['id']}, "
                f"{f'mended in {mended}' if mended else 'not mended yet'}"
            )
    return code or _say(f"{len(packages)} packages, {'see above' if _any(packages) else 'no known vulnerability'}")


def _any(packages: list[dict[str, list[str]]]) -> bool:
    return any(package.get("vulns") for package in packages)


def _say(line: str) -> int:
    sys.stdout.write(f"audit: {line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

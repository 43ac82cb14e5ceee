"""A worker starts without what only its conductor has need of."""

import subprocess
import sys

from lockstep_bench.backends import registered

NOT_NEEDED = {"cpuinfo", "matplotlib", "pandas", "platformdirs", "pydantic", "requests", "rich", "scipy", "typer"}
CODE = (
    "from lockstep_bench.harness.worker.worker import Worker; Worker().start('numpy'); import sys; print(*sys.modules)"
)


def test_worker_imports_its_backend_and_no_other() -> None:
    """Nor another framework, nor what makes tables and reads records."""
    imported = set(subprocess.check_output([sys.executable, "-P", "-c", CODE], text=True).split())
    frameworks = {module.partition(".")[0] for backend in registered().values() for module in backend.modules}
    assert imported & (NOT_NEEDED | frameworks) == {"numpy"}
    assert imported & {backend.__module__ for backend in registered().values()} == {"lockstep_bench.backends.numpy"}

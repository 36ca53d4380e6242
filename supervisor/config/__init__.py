"""The configuration: its sections, the reading of its file, and what cannot stand together."""

from rkvisor.supervisor.config.checks import ConfigError, worker_endpoint
from rkvisor.supervisor.config.files import check_files
from rkvisor.supervisor.config.reading import endpoint, parse
from rkvisor.supervisor.config.sections import (
    Config,
    DiagnosticsSection,
    LimitsSection,
    ListenSection,
    MemorySection,
    ModelSection,
    SupervisorSection,
)

__all__ = [
    "Config",
    "ConfigError",
    "DiagnosticsSection",
    "LimitsSection",
    "ListenSection",
    "MemorySection",
    "ModelSection",
    "SupervisorSection",
    "check_files",
    "endpoint",
    "parse",
    "worker_endpoint",
]

"""How properties are searched: the same way on every run, unless ``RKVISOR_SEARCH`` says otherwise.

``explore`` searches anew and longer, and prints how to repeat what it finds.  ``hasty`` does not simplify what it
finds: enough for ``mutants.py``, which only asks whether anything is found.
"""

import os

from hypothesis import HealthCheck, Phase, settings

_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much]
_ANY = settings(deadline=None, database=None, suppress_health_check=_QUIET)
settings.register_profile("steady", _ANY, derandomize=True)
settings.register_profile("hasty", _ANY, derandomize=True, phases=[Phase.explicit, Phase.generate])
settings.register_profile("explore", _ANY, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("RKVISOR_SEARCH", "steady"))

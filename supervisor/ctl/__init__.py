"""``rkvisorctl``: supervisorctl's verbs, and what rkvisor adds."""

"""Chaos: a seeded schedule of faults against a real rkvisord, and what must hold after each of them.

    python -P -m chaos.run [--seed N] [--count 1000] [--only KIND] [--scenario K]     (PYTHONPATH=tests)

``schedule.py`` draws the scenarios, ``rules.py`` says how each must end, ``drill.py`` and ``beheading.py`` act them
out, ``subject.py`` knows what rkvisord looks like when nothing is wrong.
"""

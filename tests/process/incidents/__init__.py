"""Incidents played on a cluster of separate processes with a real Prometheus and Alertmanager, and
rated: does minilog itself tell what happened, what was lost, how long it took and what to do now?

    python -m tests.process.incidents                      all of them, as a table
    python -m tests.process.incidents kill_leader          one, and what a person would read
    python -m tests.process.incidents --json FILE --page   a file of the table, and the page of docs

Begin with ``incident.py`` (what an incident is) and ``ratings.py`` (the plain checks). ``deaths``,
``cuts``, ``disks`` and ``strains`` are the incidents.
"""

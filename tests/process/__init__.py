"""Real processes, real signals, real networks and disks; judged by what was acknowledged and what can be read back.

    pytest tests/process                              one round of most faults, about three and a half minutes
    python -m tests.process.soak --minutes 10         all of them, alone and mixed, with a table and a JSON file
    python -m tests.process.fullload --minutes 10     as much load as the machine bears: nobody may be fenced
    python -m tests.process.report soak.json --write  the figures of the documents; plot draws the pictures
    python -m tests.process.idempotence --minutes 10  idempotent producers while leaders are killed and cut off

    nemesis_*  the faults; catalogue      cluster      processes, placed in networks and on disks of their own
    workload   clients that take notes    network      namespaces around a router that drops what it is told to
    scene      what a nemesis acts on     slow_link    delay, loss and narrow links without netem
    campaign   one round and its verdict  faulty_disk  power cuts, EIO, full disks, changed bytes
    history    the checker, and history_*, anomalies_*, verdict, recorded beside it
    report     tables, goals              machine      how busy it was meanwhile

Networks and disks need root, iproute2, e2fsprogs, mount and util-linux; without them those faults are left out.
"""

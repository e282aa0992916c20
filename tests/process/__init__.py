"""Real processes, real signals, real networks and disks; judged by what was acknowledged and what
can be read back.

    pytest tests/process                                  one round of most faults, about three and a half minutes
    python -m tests.process.campaign.soak --minutes 10    all of them, alone and mixed, with a table and a JSON file
    python -m tests.process.load.fullload --minutes 10    as much load as the machine bears: nobody may be fenced
    python -m tests.process.campaign.report soak.json --write  the figures of the documents; plot draws the pictures
    python -m tests.process.load.idempotence --minutes 10  idempotent producers while leaders are killed and cut off

    nemesis/   the faults                          rig/       processes, networks, disks, and the machine's load
    load/      clients that take notes             checker/   was there any way that this was a correct log?
    campaign/  rounds of faults, tables, pictures  incidents/ what minilog says of each fault, rated

Networks and disks need root, iproute2, e2fsprogs, mount and util-linux. Without them those faults
are left out.
"""

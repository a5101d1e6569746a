"""The benchmark of tenant-tasks. `tests/bench/run --help` lists the options.

__main__     the command line; runs the selected parts and writes the results
plan         the contestants, the loads and the bounds
install      builds the servers and installs the tools
servers      starts the contestants and checks that all return the same tasks
loads        part 1: requests per second of all contestants
limits       part 2: startup, memory and latency of the service alone
growth       part of limits: time per request by number of tasks
disturbance  part of limits: clients that slow down other clients
postgres     part 3: the service with tasks in PostgreSQL
observed     part 4: the cost of logging and metrics
service      runs tenant-tasks for parts 2 to 4, and its client
wrk          runs the load generator; lua/ contains its scripts
report       ratios, tables and the chart
machine      cores, ports, processes and file limits
paths        folders and binaries
"""

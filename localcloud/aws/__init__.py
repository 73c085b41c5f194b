"""AWS on this machine: the moto server, repaired, with a real PostgreSQL behind every RDS cluster.

    python -m controlplane.localcloud.aws --port P --data-dir D --endpoint-map FILE

moto keeps everything in memory, so a new start is a new, empty account, whatever the data folder
holds. `fidelity` is the one place where moto is made to answer as AWS does; the product and its
Terraform modules are never bent to an emulator.
"""

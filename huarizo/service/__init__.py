"""Running Huarizo on this machine: what `huarizo up` starts, keeps alive and stops, and how commands find it.

`places` says where things lie, `address` which service runs over a data folder, `devices` which GPUs there are,
`commands` what each process is, `supervisor` keeps processes alive, `up` puts it all together.
"""

"""PostgreSQL and a Redis-compatible broker as child processes, for `huarizo up` without any server installed.

`supervisor.EmbeddedServers` starts and keeps them, `connection.running` finds them from another terminal,
`lifeline.popen` starts any child that must not outlive its parent, `places.data_home` says where the data lives.
"""

"""What each server of the set is told."""

from pathlib import Path

POSTGRES = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}/sockets'
max_connections = 200
password_encryption = 'scram-sha-256'
log_line_prefix = '%m [%p] %u '
log_statement = 'none'
"""

HBA = """
local all postgres trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""

PGBOUNCER = """
[databases]
* = host=127.0.0.1 port={database}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 8
server_idle_timeout = 20
max_client_conn = 500
server_login_retry = 1
pidfile =
"""

REDIS = """
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
save ""
appendonly no
maxmemory 512mb
maxmemory-policy noeviction
databases 4096
daemonize no
set-proc-title no
"""


def write(path: Path, text: str, **values: object) -> Path:
    path.write_text(text.format(**values))
    return path

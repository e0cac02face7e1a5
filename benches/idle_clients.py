"""Opens many clients of a pooler that do nothing, on bare sockets and without authentication, for compare.sh to weigh the pooler
with. usage: idle_clients.py PORT DATABASE USER COUNT

Speaks with its parent in lines: prints `connected` when all are logged in; at the next line from stdin each runs one query, then
it prints `queried`; at the next it ends."""

import socket
import struct
import sys

READ_SECONDS_MAX = 30


def startup(database, user):
    body = struct.pack("!I", 196608)
    body += b"".join(word.encode() + b"\0" for word in ("user", user, "database", database)) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def read_until_ready(connection):
    """Reads messages up to ReadyForQuery; an ErrorResponse or a closed socket ends the program."""
    data = b""
    while True:
        more = connection.recv(65536)
        if not more:
            sys.exit("the pooler closed a connection")
        data += more
        while len(data) >= 5:
            length = 1 + struct.unpack("!I", data[1:5])[0]
            if len(data) < length:
                break
            kind, data = data[:1], data[length:]
            if kind == b"E":
                sys.exit("the pooler answered with an error")
            if kind == b"Z":
                return


def main():
    port, database, user, count = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    connections = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=READ_SECONDS_MAX)
        connection.sendall(startup(database, user))
        read_until_ready(connection)
        connections.append(connection)
    print("connected", flush=True)
    sys.stdin.readline()
    query = b"SELECT 1\0"
    for connection in connections:
        connection.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
        read_until_ready(connection)
    print("queried", flush=True)
    sys.stdin.readline()


main()

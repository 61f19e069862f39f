"""Runs gcloud-tasks-emulator on this machine alone, by the Python that it is installed for.

    .venv-emulator/bin/python tests/backends/sites/emulator_main.py TARGET_PORT

Its own command listens on all addresses, and its port must be known before. Here it is any that is free; a line tells.
"""

import sys

from gcloud_tasks_emulator import server


def main(target_port: int) -> None:
    make_server = server.grpc.server

    def make_local_server(*args):
        made = make_server(*args)
        bind = made.add_insecure_port

        def bind_here(_):
            port = bind("127.0.0.1:0")
            print(port, flush=True)
            return port

        made.add_insecure_port = bind_here
        return made

    server.grpc.server = make_local_server
    server.create_server("127.0.0.1", 0, "127.0.0.1", target_port).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))

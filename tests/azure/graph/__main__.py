"""Starts the mock, an HTTPS proxy on a free port of 127.0.0.1. ../run_with_mock.sh uses it."""

import argparse
import json
import pathlib
import signal
import threading

from .certificates import create_certificates
from .directory import SETTINGS, Directory
from .faults import Faults
from .server import Server


def parse_arguments():
    parser = argparse.ArgumentParser(prog="graph", description=__doc__)
    parser.add_argument("--create-certificates", type=pathlib.Path, metavar="FOLDER", help="create them and exit")
    parser.add_argument("--certificates", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--seed", type=pathlib.Path, metavar="FILE", help="the first content of the directory, as JSON")
    parser.add_argument(
        "--state", type=pathlib.Path, metavar="FILE", help="read the state if it exists; write it at exit"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of directory.py")
    parser.add_argument("--fault", action="append", default=[], metavar="JSON", help="see faults.py")
    parser.add_argument("--port-file", type=pathlib.Path, metavar="FILE", help="write the port to it")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.create_certificates:
        create_certificates(arguments.create_certificates)
    else:
        serve(arguments)


def serve(arguments):
    directory = Directory(json.loads(arguments.seed.read_text()))
    if arguments.state.exists():
        directory.load(json.loads(arguments.state.read_text()))
    for setting in arguments.set:
        name, _, value = setting.partition("=")
        directory.settings[name] = type(SETTINGS[name])(value)
    faults = Faults([json.loads(fault) for fault in arguments.fault])
    server = Server(directory, faults, arguments.certificates)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The file appears with its content.
    temporary = arguments.port_file.with_suffix(".new")
    temporary.write_text(str(server.server_port))
    temporary.rename(arguments.port_file)
    stop.wait()
    with directory.lock:
        state = directory.dump() | {"requests": directory.requests, "injectedFaults": faults.injected}
        arguments.state.write_text(json.dumps(state, indent=1))


main()

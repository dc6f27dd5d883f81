"""Stands for Python: the warm server's copy runs this command line, and this process is that copy to whoever started it.

Signals go to the copy, the exit code comes from it, and the end of either is the end of both. Little is imported, since
this is started for every process.
"""

import json
import os
import signal
import socket
import sys

_, address, executable, *arguments = sys.argv
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect(address)
for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
    signal.signal(signum, lambda number, _: server.send(str(number).encode()))
request = {
    "arguments": arguments,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "executable": executable,
}
socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
answer = server.recv(16)
if not answer:
    sys.exit("the warm server is gone")
code = int(answer)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)

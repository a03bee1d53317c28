"""How a test wants gunicorn: quiet, gone soon after a SIGTERM, and gone with the test run.

gunicorn waits for requests under way before it stops; one of the agent's answers takes 30 seconds.
"""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from parent_watch import end_with_parent  # noqa: E402

chdir = os.path.dirname(os.path.abspath(__file__))
graceful_timeout = 1
control_socket_disable = True  # it would be one file in the home directory for all of them
loglevel = "warning"


def when_ready(_server):
    end_with_parent(signal.SIGTERM)
    print("ready", flush=True)

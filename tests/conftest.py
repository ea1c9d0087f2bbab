"""For all tests: signals as a terminal gives them, whoever started the run (`nohup`, a script's `&`)."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)

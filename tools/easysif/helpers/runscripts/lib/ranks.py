# SPDX-License-Identifier: GPL-2.0-only
"""Usage: imported by distributed.py

One rank of a job step: it runs the program, and is connected with the first rank, which tells all others when one of
them has failed. Runs under every Python that images have, so it uses old syntax only.
"""

import os
import resource
import selectors
import shutil
import signal
import socket
import sys
import time

from ends import end_with_parent, rehearse
from links import Link, allow_files, find, is_proof, take_two

OTHER_FILES = 64  #: files that the first rank has open beside a connection with each of the others
GRACE = 10.0  #: seconds between SIGTERM and SIGKILL for a program that has to end
FORWARDED = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT]
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
HANDLED = [signal.SIGCHLD] + FORWARDED


class Failure(Exception):
    """What went wrong, with a hint to type (str or None) and the exit status of this rank (int)."""

    def __init__(self, what, hint=None, status=1):
        Exception.__init__(self, what)
        self.hint, self.status = hint, status


def tell(what, hint=None):
    """Print an error."""
    sys.stderr.write('error: conda-python-distributed: %s\n%s' % (what, 'hint: %s\n' % hint if hint else ''))
    sys.stderr.flush()


class Rank(object):
    """This rank: its program, its connections, and what it has to do when one of them ends.

    :param step: the job step (distributed.Step), which knows ports, environment and caches
    :param argv: the program (list of str)
    :param is_json: whether it is said what the program is given (bool)
    """

    def __init__(self, step, argv, is_json=False):
        self.step, self.argv, self.is_json, self.is_first = step, argv, is_json, step.rank == 0
        self.name = 'rank %d on %s' % (step.rank, step.host)
        self.selector, self.links, self.come, self.kept = selectors.DefaultSelector(), set(), set(), []
        self.child, self.directory, self.wake = None, None, None
        self.server, self.meeting, self.port = None, None, None
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.status, self.why, self.kill_at, self.ending = 0, None, None, 0
        self.deadline = time.monotonic() + step.patience

    def run(self):
        """Return the exit status of this rank (int)."""
        try:
            if self.is_first:
                self.open()
            else:
                self.meet()
            try:
                self.listen()
                rehearse()
                if not self.why:
                    self.start()
            except Failure as err:
                tell('%s: %s' % (self.name, err), err.hint)
                self.stop('%s: %s' % (self.name, err), err.status)
                self.say_end(err.status)
            while not self.is_over():
                for key, _ in self.selector.select(1.0):
                    if key.fileobj is self.wake:
                        self.forward(self.wake.recv(4096))
                    elif key.fileobj is self.server:
                        self.welcome()
                    else:
                        self.hear(key.data)
                self.look()
            return self.status
        finally:
            if self.child:
                os.kill(self.child, signal.SIGKILL)
                os.waitpid(self.child, 0)
            if self.directory:
                shutil.rmtree(self.directory, ignore_errors=True)

    def open(self):
        """Find two ports that are free, and be there for the other ranks at one of them."""
        if not allow_files(self.step.size + OTHER_FILES):
            raise Failure('%s: may open %d files, which is too few for %d ranks' % (
                self.name, self.limits[1], self.step.size), 'ulimit -Hn, on this node')
        free, self.kept, self.server = take_two(self.step.ports(), self.step.size - 1)  # until this rank ends
        if len(free) < 2:
            raise Failure('%s: of the %d ports of this job step none is free' % (self.name, len(self.step.ports())),
                          'ss -ltn, on this node')
        self.port = self.step.port or free[1]
        if self.server:
            self.meeting = self.server.getsockname()[1]
            self.selector.register(self.server, selectors.EVENT_READ)

    def meet(self):
        """Find the first rank, and hear from it at which port the program is to meet its own."""
        try:
            link, words, meeting = find(self.step, self.deadline)
        except LookupError as err:
            raise Failure('%s: the first rank could not be met on %s within %d seconds (%s)' % (
                self.name, self.step.master, self.step.patience, err),
                'getent hosts %s, on each node' % self.step.master)
        link.send(step=self.step.name, rank=self.step.rank, host=self.step.host,
                  proof=self.step.proof('rank', meeting, self.step.rank))
        self.port = words[0]['port']
        self.add(link)
        for one in words[1:]:
            self.take(link, one)

    def add(self, link):
        """Listen to a connection."""
        self.links.add(link)
        self.selector.register(link.connection, selectors.EVENT_READ, link)

    def listen(self):
        """Be woken by signals, from now on."""
        self.wake, end = socket.socketpair()
        for each in (self.wake, end):
            each.setblocking(False)
        self.kept.append(end)
        for number in HANDLED:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(end.fileno())
        self.selector.register(self.wake, selectors.EVENT_READ)

    def start(self):
        """Start the program."""
        self.directory, variables = self.step.variables(self.port)
        if self.is_json:
            self.step.report(variables)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # until the program would have them
        self.child = os.fork()
        if not self.child:
            try:
                end_with_parent()
                signal.set_wakeup_fd(-1)
                for number in HANDLED:
                    signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)
                os.execvpe(self.argv[0], self.argv, dict(os.environ, **variables))
            except EnvironmentError as err:
                tell('%s: %s: %s' % (self.name, self.argv[0], err.strerror))
            finally:
                os._exit(127)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def forward(self, numbers):
        """Hand on signals to the program; one that is to end it ends the first rank which only waits for the others."""
        for number in bytearray(numbers):
            if number in ENDING:
                self.ending = self.ending or number
            if number in FORWARDED and self.child:
                os.kill(self.child, number)
            elif number in ENDING:
                self.stop_as_told()

    def welcome(self):
        """Let another rank in."""
        try:
            connection, _ = self.server.accept()
        except EnvironmentError:  # so many came in that are none of the ranks, or this one is gone already
            for link in [one for one in self.links if one.rank is None]:
                self.leave(link)
            return
        link = Link(connection)
        link.send(step=self.step.name, port=self.port, proof=self.step.proof('first', self.meeting, self.port))
        if self.why:
            link.send(stop=self.why, status=self.status)
        self.add(link)

    def hear(self, link):
        """Take what another rank says, or that it says nothing any more."""
        words = link.read() if link in self.links else ()
        for one in words or ():
            self.take(link, one)
        if words is None:
            self.leave(link)

    def take(self, link, words):
        """Take one thing that another rank says (dict)."""
        if self.is_first and link.rank is None:
            if words.get('step') == self.step.name and words.get('rank') in range(1, self.step.size) \
                    and words['rank'] not in self.come \
                    and is_proof(words.get('proof'), self.step.proof('rank', self.meeting, words['rank'])):
                link.rank, link.host = words['rank'], words.get('host')
                self.come.add(link.rank)
        elif 'ended' in words:
            link.is_over = True
            if words['ended']:
                self.stop(words.get('why'), words['ended'])
        elif 'stop' in words:
            self.stop(words['stop'], words.get('status', 1))

    def leave(self, link):
        """Close a connection; of one that has not said how it ended nothing good is to be thought."""
        self.selector.unregister(link.connection)
        link.connection.close()
        self.links.discard(link)
        if not self.is_first or link.rank is not None and not link.is_over:
            self.lost('rank %d on %s' % (link.rank, link.host) if self.is_first
                      else 'the first rank, on %s,' % self.step.master)

    def lost(self, who):
        """End, as another rank is gone."""
        if not self.why and (self.child or self.is_first):
            if not self.ending:
                tell('%s was lost' % who)
            self.stop('%s was lost' % who, 1)

    def stop(self, why, status):
        """End the program, and have all others end theirs."""
        if self.why:
            return
        self.why, self.status = why or 'a rank failed', status
        self.kill_at = time.monotonic() + GRACE
        if self.child:
            os.kill(self.child, signal.SIGTERM)
        for link in self.links if self.is_first else ():
            link.send(stop=self.why, status=status)

    def stop_as_told(self):
        """Have all others end, as somebody wants this one to end."""
        self.stop('%s was told to end' % self.name, 128 + self.ending)

    def look(self):
        """See whether the program has ended, and what time it is."""
        if self.child:
            pid, how = os.waitpid(self.child, os.WNOHANG)
            if pid:
                self.child = None
                self.ended(-os.WTERMSIG(how) if os.WIFSIGNALED(how) else os.WEXITSTATUS(how))
        now = time.monotonic()
        if self.child and self.kill_at and now > self.kill_at:
            os.kill(self.child, signal.SIGKILL)
        if self.server and len(self.come) == self.step.size - 1:  # from now on there is nobody to be let in
            self.selector.unregister(self.server)
            self.server = self.server.close()
        missing = sorted(set(range(1, self.step.size)) - self.come) if self.is_first else []
        if missing and self.ending and not self.child:
            self.stop_as_told()
        if missing and now > self.deadline and not self.why:
            what = 'rank %s did not come within %d seconds' % (', '.join(map(str, missing)), self.step.patience)
            tell(what, 'look above for what it printed; EASYSIF_RENDEZVOUS_TIMEOUT=<seconds> waits longer')
            self.stop(what, 1)

    def ended(self, code):
        """Take how the program ended: its exit status, or minus the signal that it died of (int)."""
        status = 128 - code if code < 0 else code
        if status and not self.why:
            what = '%s %s' % (self.name, 'was ended by signal %d' % -code if code < 0 else
                              'ended with exit code %d' % code)
            if -code not in ENDING:  # somebody wants it to end, and says so
                tell(what, 'look above for what it printed')
            self.stop(what, status)
        self.say_end(self.status)

    def say_end(self, status):
        """Tell the first rank that this one is over."""
        if not self.is_first:
            for link in list(self.links):
                link.send(ended=status, why=self.why)

    def is_over(self):
        """Return whether there is nothing left to do (bool): of the first rank, when all others are gone.

        Those that did not come yet are not waited for by one that was told to end.
        """
        if self.child:
            return False
        if not self.is_first:
            return True
        everybody_came = len(self.come) == self.step.size - 1
        # who only came in is none of the ranks, and may stay for ever
        is_left = all(link.rank is None for link in self.links)
        return is_left and bool(everybody_came or self.ending or time.monotonic() > self.deadline)

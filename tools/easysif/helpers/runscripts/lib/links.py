# SPDX-License-Identifier: GPL-2.0-only
"""Usage: imported by ranks.py

What connects the ranks of a job step: lines of JSON, proofs that these are of the ranks, and ports that two steps never
share. Runs under every Python that images have, so it uses old syntax only.
"""

import hmac
import json
import os
import resource
import selectors
import socket
import time


class Link(object):
    """A connection that carries one JSON object a line."""

    def __init__(self, connection):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (('TCP_KEEPIDLE', 30), ('TCP_KEEPINTVL', 10), ('TCP_KEEPCNT', 3),
                            ('TCP_USER_TIMEOUT', 60000)):
            if hasattr(socket, name):  # a node that died says nothing
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.connection, self.left, self.rank, self.host = connection, b'', None, ''
        self.is_over = False

    def send(self, **words):
        """Send an object; one who is gone is found out by reading."""
        try:
            self.connection.sendall(json.dumps(words).encode() + b'\n')
        except EnvironmentError:
            pass

    def read(self):
        """Return the objects that have come (list of dict), None where the connection has ended."""
        try:
            data = self.connection.recv(65536)
        except EnvironmentError:
            return None
        lines = (self.left + data).split(b'\n')
        self.left = lines.pop()
        if not data or len(self.left) > 65536:
            return None
        try:
            found = [json.loads(line.decode()) for line in lines]
        except (ValueError, RuntimeError):  # the second: nested deeper than Python can follow
            return None
        return found if all(isinstance(one, dict) for one in found) else None


def proof(key, *words):
    """Return what only one who has a key can say of some words (str), '' where there is no key."""
    return hmac.new(os.fsencode(key), json.dumps(words).encode(), 'sha256').hexdigest() if key else ''


def is_proof(said, right):
    """Tell whether somebody said what is right (bool), in a time that does not depend on how much of it is.

    :param said: of any kind, as it came
    :param right: as from `proof` (str)
    """
    return isinstance(said, type(right)) and hmac.compare_digest(said.encode('utf-8', 'replace'), right.encode())


def find(step, deadline):
    """Return a connection with the first rank of a job step (Link), what it says (list of dict) and where (port, int).

    It greets who comes. Somebody else may listen where it could be: one that is silent is left waiting, and one that
    cannot prove that it knows the key of this job, where there is one, is not believed.

    :param step: the job step (distributed.Step)
    :param deadline: until when it is looked for
    :raises LookupError: why it was not found
    """
    tried, why, pause = {}, 'nobody is there', 0.1
    selector = selectors.DefaultSelector()
    try:
        while time.monotonic() < deadline:
            try:
                address = socket.gethostbyname(step.master)
            except EnvironmentError as err:
                why, address = err, None
            for port in step.ports() if address else ():
                if port not in tried:
                    tried[port] = Link(socket.socket())
                    tried[port].connection.setblocking(False)
                    tried[port].connection.connect_ex((address, port))
                    selector.register(tried[port].connection, selectors.EVENT_READ, port)
            for key, _ in selector.select(0.2):
                port, words = key.data, tried[key.data].read()
                if words and words[0].get('step') == step.name and isinstance(words[0].get('port'), int):
                    if is_proof(words[0].get('proof'), step.proof('first', port, words[0]['port'])):
                        selector.unregister(key.fileobj)
                        tried[port].connection.setblocking(True)
                        return tried.pop(port), words, port
                    why, words = 'who is there does not know the key of this job', None
                if words is None:
                    selector.unregister(key.fileobj)
                    tried.pop(port).connection.close()
            time.sleep(pause)  # before the next look for one that has not begun: a thousand ranks may look
            pause = min(1.0, pause * 1.5)
    finally:
        for link in tried.values():
            link.connection.close()
        selector.close()
    raise LookupError(why)


def allow_files(number):
    """Let this process have so many files open, connections among them; return whether it may (bool)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        return False
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    return True


def reserve(port):
    """Return what keeps other job steps on this node from a port (socket), None where one of them or anybody has it."""
    ticket, trial = socket.socket(socket.AF_UNIX), socket.socket()
    try:
        ticket.bind('\0easysif-port-%d' % port)
        trial.bind(('', port))
        return ticket
    except EnvironmentError:
        ticket.close()
        return None
    finally:
        trial.close()


def take_two(ports, others):
    """Take the first two ports that are free, and listen at the first of them where there are others.

    :param ports: which may be taken (list of int)
    :param others: how many are to come (int)
    :returns: the ports (list of int), what keeps other job steps from them, and what listens (socket or None)
    """
    free, tickets, server = [], [], None
    for port in ports:
        ticket = reserve(port) if len(free) < 2 else None
        if ticket and others and not free:
            server = serve(port, others)
        if ticket and (free or server or not others):
            free.append(port)
            tickets.append(ticket)
        elif ticket:  # somebody was faster
            ticket.close()
    return free, tickets, server


def serve(port, others):
    """Return a socket that listens at a port for so many others (socket), None where somebody has taken it by now."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(('', port))
        server.listen(min(others, 4096))
        return server
    except EnvironmentError:
        server.close()
        return None
